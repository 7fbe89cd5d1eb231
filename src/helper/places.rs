//! Which processes of a node belong to a container or a pod, as `/proc/PID/cgroup` tells.

use std::{fs, path::Path};

/// What becomes part of the name of a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A container, by its id.
    Container(&'a str),
    /// All containers of a pod, the sandbox among them, by the pod's uid.
    Pod(&'a str),
}

impl Place<'_> {
    /// Whether the text of a `/proc/PID/cgroup` names this place. Both versions of control groups are read, with the names that
    /// containerd, CRI-O and Docker give, by systemd or without.
    pub(super) fn holds(self, cgroup: &str) -> bool {
        let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        paths.flat_map(|path| path.split(['/', ':'])).any(|part| self.is_named_by(part))
    }

    fn is_named_by(self, part: &str) -> bool {
        match self {
            Self::Container(id) => {
                let part = part.strip_suffix(".scope").unwrap_or(part);
                // CRI-O's monitor of a container is no part of it.
                let runtime = part.strip_suffix(id).filter(|_| !id.is_empty());
                runtime.is_some_and(|runtime| {
                    runtime.is_empty() || (runtime.ends_with('-') && !runtime.ends_with("conmon-"))
                })
            }
            Self::Pod(uid) => {
                let part = part.strip_suffix(".slice").unwrap_or(part);
                let end = part.rsplit_once("pod").map_or("", |(_, end)| end);
                !uid.is_empty() && (end == uid || end.replace('_', "-") == uid)
            }
        }
    }
}

/// A container's id without the name of its runtime.
pub(super) fn bare_id(id: &str) -> &str {
    id.rsplit_once("://").map_or(id, |(_, id)| id)
}

/// The processes of a place below `proc`, in the order of their numbers. What ends meanwhile is left out.
pub(super) fn processes(proc: &Path, place: Place<'_>) -> std::io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if is_in(proc, pid, place) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a process belongs to a place now.
pub(super) fn is_in(proc: &Path, pid: u32, place: Place<'_>) -> bool {
    fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).is_ok_and(|text| place.holds(&text))
}

/// The letter of a process's state (`R`, `S`, `T`, …); none once it is gone.
pub(super) fn state(proc: &Path, pid: u32) -> Option<char> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name before it is in parentheses and may hold anything.
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9f2d1c0a5b6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708";
    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    #[test]
    fn containers_are_known_by_every_runtimes_names() {
        let systemd = UID.replace('-', "_");
        for cgroup in [
            // Version 1, without systemd: a line for each hierarchy.
            format!("12:pids:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n"),
            // Version 2 with systemd, containerd.
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/cri-containerd-{ID}.scope\n"),
            // Seen from another control group's namespace.
            format!("0::/../../kubepods-burstable-pod{systemd}.slice/cri-containerd-{ID}.scope\n"),
            // CRI-O, with a group of its own inside of the container.
            format!("0::/kubepods.slice/kubepods-besteffort-pod{systemd}.slice/crio-{ID}.scope/container\n"),
            // Docker.
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/docker-{ID}.scope\n"),
            // containerd told to use systemd while the runtime does not.
            format!("11:cpu:/system.slice/containerd.service/kubepods-pod{systemd}.slice:cri-containerd:{ID}\n"),
        ] {
            assert!(Place::Container(ID).holds(&cgroup), "{cgroup}");
            assert!(Place::Pod(UID).holds(&cgroup), "{cgroup}");
            assert!(!Place::Container(&ID.replace('9', "8")).holds(&cgroup), "{cgroup}");
            assert!(!Place::Pod(&UID.replace('0', "1")).holds(&cgroup), "{cgroup}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_none() {
        for cgroup in [
            format!("0::/kubepods.slice/crio-conmon-{ID}.scope\n"),
            format!("0::/kubepods/podx/{ID}0\n"),
            format!("0::/kubepods/podx/0{ID}\n"),
            "0::/\n".to_owned(),
            String::new(),
        ] {
            assert!(!Place::Container(ID).holds(&cgroup), "{cgroup}");
        }
        assert!(!Place::Container("").holds("0::/\n"));
        assert!(!Place::Pod("").holds("0::/pod/x\n"));
    }

    #[test]
    fn an_id_loses_its_runtimes_name() {
        assert_eq!(bare_id(&format!("containerd://{ID}")), ID);
        assert_eq!(bare_id(ID), ID);
    }

    #[test]
    fn the_state_of_a_process_comes_after_its_name_whatever_that_is() {
        let proc = std::env::temp_dir().join(format!("soak-places-{}", std::process::id()));
        for (pid, stat) in [("7", "7 (a) R (b) T 1 7"), ("8", "8 (sh) S 1 8")] {
            fs::create_dir_all(proc.join(pid)).unwrap();
            fs::write(proc.join(pid).join("stat"), stat).unwrap();
            fs::write(proc.join(pid).join("cgroup"), format!("0::/pod{UID}/{pid}{ID}\n")).unwrap();
        }
        fs::create_dir_all(proc.join("self")).unwrap();
        assert_eq!((state(&proc, 7), state(&proc, 8), state(&proc, 9)), (Some('T'), Some('S'), None));
        assert_eq!(processes(&proc, Place::Pod(UID)).unwrap(), [7, 8]);
        assert_eq!(processes(&proc, Place::Container(&format!("8{ID}"))).unwrap(), [8]);
        fs::remove_dir_all(&proc).unwrap();
    }
}
