//! A pod's network, entered from the node.

use std::{fs, io, os::fd::AsFd, path::Path, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::places::{Place, processes};

/// A process whose network is the pod's; none when the pod has no process.
///
/// Errors: its network is the node's own. To change that would cut off the node.
pub(super) fn process_of_pod(proc: &Path, pod: &str) -> io::Result<Option<u32>> {
    // A helper runs in its node's network.
    let own = fs::read_link("/proc/self/ns/net")?;
    for pid in processes(proc, Place::Pod(pod))? {
        match fs::read_link(proc.join(pid.to_string()).join("ns/net")) {
            Ok(network) if network == own => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "the pod uses its node's network"));
            }
            Ok(_) => return Ok(Some(pid)),
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Calls `work` in the network of a process, on a thread of its own: the rest of this program stays where it is.
pub(super) fn within<T: Send + 'static>(
    proc: &Path,
    pid: u32,
    work: impl AsyncFnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let network = fs::File::open(proc.join(pid.to_string()).join("ns/net"))?;
    let thread = thread::Builder::new().name("network".into()).spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the pod's network ended in a panic")))
}
