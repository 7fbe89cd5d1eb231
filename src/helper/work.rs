//! What a helper does, and how each of it is made, seen and undone.

use std::{io, path::Path};

use clap::{Subcommand, ValueEnum};
use rustix::process::Signal;

use super::{
    cut,
    network::{process_of_pod, within},
    places::{Place, bare_id, processes},
    prefix::{Prefix, Way, routes},
    processes as signals, resolv,
};

/// What is done. Its words stand in an injection's journal.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Work {
    /// All processes of the container stand still.
    Pause,
    /// All processes of the container get a signal, once.
    Signal {
        /// Which.
        #[arg(value_enum, ignore_case = true)]
        name: SignalName,
    },
    /// The pod does not reach some addresses.
    Cut {
        /// An address or a range.
        #[arg(long = "address")]
        addresses: Vec<Prefix>,
        /// All addresses.
        #[arg(long, conflicts_with = "addresses")]
        all: bool,
        /// An address or a range that stays in reach.
        #[arg(long)]
        except: Vec<Prefix>,
    },
    /// The pod does not reach its name servers.
    Dns {
        /// A server (default: those of the container's `/etc/resolv.conf`).
        #[arg(long = "server")]
        servers: Vec<Prefix>,
    },
}

/// Signals that end or tell something; those that stop are [`Work::Pause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SignalName {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

impl SignalName {
    const fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Hup => Signal::HUP,
            Self::Quit => Signal::QUIT,
            Self::Usr1 => Signal::USR1,
            Self::Usr2 => Signal::USR2,
        }
    }
}

/// Work at a place.
pub(super) struct Job<'a> {
    pub(super) proc: &'a Path,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
    pub(super) key: &'a str,
    pub(super) work: &'a Work,
}

/// What was found where something was to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done, in words.
    Done(String),
    /// There is no process of it any more.
    Gone,
}

impl Job<'_> {
    fn container(&self) -> Place<'_> {
        Place::Container(bare_id(self.container))
    }

    /// Whether it leaves nothing that would have to be undone.
    pub(super) const fn is_at_once(&self) -> bool {
        matches!(self.work, Work::Signal { .. })
    }

    /// Makes it. Idempotent, but for a signal.
    ///
    /// Errors: some of it may be there.
    pub(super) fn make(&self) -> io::Result<Outcome> {
        match self.work {
            Work::Pause => Ok(match signals::stop(self.proc, self.container())? {
                0 => Outcome::Gone,
                count => Outcome::Done(format!("processes that stand still: {count}")),
            }),
            Work::Signal { name } => Ok(match signals::send_all(self.proc, self.container(), name.signal())? {
                0 => Outcome::Gone,
                count => Outcome::Done(format!("processes that got the signal: {count}")),
            }),
            Work::Cut { .. } | Work::Dns { .. } => {
                let Some(pid) = process_of_pod(self.proc, self.pod)? else { return Ok(Outcome::Gone) };
                let Some(wanted) = self.wanted()? else { return Ok(Outcome::Gone) };
                let (count, table) = (wanted.len(), cut::table(self.key));
                within(self.proc, pid, async move || cut::make(table, wanted).await)?;
                Ok(Outcome::Done(format!("routes: {count}")))
            }
        }
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        match self.work {
            Work::Pause => Ok(matches!(signals::count(self.proc, self.container())?, (1.., 0))),
            Work::Signal { .. } => Ok(false),
            Work::Cut { .. } | Work::Dns { .. } => {
                let Some(pid) = process_of_pod(self.proc, self.pod)? else { return Ok(false) };
                let Some(wanted) = self.wanted()? else { return Ok(false) };
                let table = cut::table(self.key);
                within(self.proc, pid, async move || Ok(cut::look(table).await?.is_all(&wanted)))
            }
        }
    }

    /// Undoes it and reads back. Right also when it was never made.
    ///
    /// Errors: some of it may be left.
    pub(super) fn undo(&self) -> io::Result<Outcome> {
        match self.work {
            Work::Pause => Ok(match signals::go_on(self.proc, self.container())? {
                0 => Outcome::Gone,
                count => Outcome::Done(format!("processes that go on: {count}")),
            }),
            Work::Signal { .. } => Ok(Outcome::Done("there is nothing to undo".into())),
            Work::Cut { .. } | Work::Dns { .. } => {
                let Some(pid) = process_of_pod(self.proc, self.pod)? else { return Ok(Outcome::Gone) };
                let table = cut::table(self.key);
                within(self.proc, pid, async move || {
                    cut::undo(table).await?;
                    if cut::look(table).await?.is_nothing() {
                        return Ok(Outcome::Done("no route of it is left".into()));
                    }
                    Err(io::Error::other("routes of it are still there"))
                })
            }
        }
    }

    /// Whether the place is there at all.
    pub(super) fn place_is_there(&self) -> io::Result<bool> {
        match self.work {
            Work::Pause | Work::Signal { .. } => Ok(!processes(self.proc, self.container())?.is_empty()),
            Work::Cut { .. } | Work::Dns { .. } => Ok(process_of_pod(self.proc, self.pod)?.is_some()),
        }
    }

    /// The routes that are wanted; none when the container whose name servers are meant has no process.
    fn wanted(&self) -> io::Result<Option<std::collections::BTreeSet<(Prefix, Way)>>> {
        Ok(Some(match self.work {
            Work::Cut { addresses, all, except } => routes(addresses, *all, except),
            Work::Dns { servers } if servers.is_empty() => {
                let Some(pid) = processes(self.proc, self.container())?.first().copied() else { return Ok(None) };
                routes(&resolv::servers_of(self.proc, pid)?, false, &[])
            }
            Work::Dns { servers } => routes(servers, false, &[]),
            Work::Pause | Work::Signal { .. } => std::collections::BTreeSet::new(),
        }))
    }
}
