//! A page as a real browser sees it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The largest page that mail and artifact viewers still take well, in bytes.
const MAX_PAGE: u64 = 5_000_000;

/// Opens a report's page in Chromium, without any network; the answer is its document once it is laid out.
///
/// Panics: the browser complains about something on its console, or the page is too large.
#[allow(clippy::missing_panics_doc, reason = "said above")]
pub fn document(page: &Path) -> String {
    let program =
        env::var_os("SOAK_TEST_CHROMIUM").expect("SOAK_TEST_CHROMIUM names a Chromium; `cargo xtask test` sets it");
    assert!(fs::metadata(page).unwrap().len() < MAX_PAGE, "{} is too large", page.display());
    let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chromium-{}", std::process::id()));
    let output = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--log-level=0", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let _ = fs::remove_dir_all(profile);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let complaints: Vec<&str> = told.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    String::from_utf8(output.stdout).unwrap()
}
