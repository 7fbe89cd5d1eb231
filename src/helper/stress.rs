//! Using up CPU, memory or disk, inside a container that is limited like any other.

use std::{
    fs::File,
    hint::black_box,
    io::{self, Seek, SeekFrom, Write},
    path::PathBuf,
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::End;

const MEGABYTE: usize = 1_000_000;
const PAGE: usize = 4_096;
const TICK: Duration = Duration::from_millis(100);

/// What is used up.
#[derive(Clone, Debug, Args)]
pub struct Stress {
    /// So many threads compute without a pause.
    #[arg(long, default_value_t = 0)]
    pub cpu_workers: u32,
    /// So much memory is held and touched, in MB.
    #[arg(long, default_value_t = 0)]
    pub memory_megabytes: u32,
    /// So much disk is written, again and again, in MB.
    #[arg(long, default_value_t = 0)]
    pub disk_megabytes: u32,
    /// Where that is written.
    #[arg(long, default_value = "/tmp")]
    pub folder: PathBuf,
    /// It ends then.
    #[arg(long)]
    pub until: Option<DateTime<Utc>>,
}

impl Stress {
    /// Works until its time is over or it is asked to end. What it used is given back by its end.
    pub(super) async fn run(self) -> End {
        let (mut term, mut int) =
            match signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?))) {
                Ok(signals) => signals,
                Err(error) => {
                    eprintln!("signals can't be received: {error}");
                    return End::NeverBegan;
                }
            };
        for _ in 0..self.cpu_workers {
            thread::spawn(compute);
        }
        if self.memory_megabytes > 0 {
            let bytes = usize::try_from(self.memory_megabytes).unwrap_or(usize::MAX).saturating_mul(MEGABYTE);
            thread::spawn(move || hold(bytes));
        }
        if self.disk_megabytes > 0 {
            let (folder, megabytes) = (self.folder.clone(), self.disk_megabytes);
            thread::spawn(move || {
                if let Err(error) = write(&folder.join("stress"), megabytes) {
                    eprintln!("the disk can't be written: {error}");
                }
            });
        }
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                () = tokio::time::sleep(TICK) => {}
            }
            if self.until.is_some_and(|until| Utc::now() >= until) {
                break;
            }
        }
        let _ = std::fs::remove_file(self.folder.join("stress"));
        End::Good
    }
}

fn compute() {
    let mut number: u64 = 1;
    loop {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    }
}

/// Holds memory and touches each page of it again and again, so that it stays in memory.
fn hold(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    loop {
        for page in memory.chunks_mut(PAGE) {
            page[0] = page[0].wrapping_add(1);
        }
        black_box(&memory);
        thread::sleep(TICK);
    }
}

fn write(path: &std::path::Path, megabytes: u32) -> io::Result<()> {
    let block = vec![0x5a_u8; MEGABYTE];
    let mut file = File::create(path)?;
    loop {
        file.seek(SeekFrom::Start(0))?;
        for _ in 0..megabytes {
            file.write_all(&block)?;
        }
        file.sync_data()?;
    }
}
