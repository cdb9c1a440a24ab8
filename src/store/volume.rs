//! Whether a file lies where it outlives a pod. SQLite on anything else forgets what was consumed, and nobody notices.

use std::path::{Path, PathBuf};

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Which directory of the filesystem is mounted.
    root: String,
    /// Where.
    point: PathBuf,
    /// The kind of filesystem.
    kind: String,
    /// What is mounted: a device, or a name.
    source: String,
}

/// Why state cannot be kept at `path`, which is absolute and free of symbolic links, if so. `mountinfo` is the text of
/// `/proc/self/mountinfo`; `in_cluster` says that this process runs in a pod, where what is on no volume is lost with it.
pub(super) fn unsuitable(mountinfo: &str, path: &Path, in_cluster: bool) -> Option<String> {
    let Some(mount) = mount_of(mountinfo, path) else {
        return in_cluster.then(|| format!("{} cannot be found in /proc/self/mountinfo", path.display()));
    };
    let (path, kind) = (path.display(), &mount.kind);
    if [&mount.root, &mount.source].iter().any(|text| text.contains("kubernetes.io~empty-dir")) {
        return Some(format!("{path} lies on an emptyDir, which is lost with the pod: mount a PersistentVolumeClaim"));
    }
    if in_cluster && ["tmpfs", "ramfs", "overlay"].contains(&kind.as_str()) {
        return Some(format!("{path} lies on {kind}, which is lost with the pod: mount a PersistentVolumeClaim"));
    }
    None
}

/// The mount that `path` is on: the longest prefix, and of those the last, which covers the others.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse).filter(|mount| path.starts_with(&mount.point));
    mounts.max_by_key(|mount| mount.point.as_os_str().len())
}

fn parse(line: &str) -> Option<Mount> {
    // After the sixth field come optional ones, closed by a dash.
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount {
        root: unescaped(before.next()?),
        point: PathBuf::from(unescaped(before.next()?)),
        kind: after.next()?.to_owned(),
        source: unescaped(after.next()?),
    })
}

/// A field with the kernel's escapes undone: space, tab, newline and backslash are written in octal.
fn unescaped(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in a pod with the usual volumes.
    const POD: &str = r"2001 1803 0:312 / / rw,relatime master:633 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
2002 2001 0:314 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
2003 2001 0:315 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
2010 2001 8:1 /var/lib/kubelet/pods/4e3f/volumes/kubernetes.io~empty-dir/scratch /scratch rw,relatime - ext4 /dev/sda1 rw
2011 2001 0:290 / /memory rw,relatime - tmpfs tmpfs rw,size=65536k
2012 2001 8:16 / /var/lib/countersign rw,relatime - ext4 /dev/sdb rw
2013 2001 8:1 /var/lib/kubelet/pods/4e3f/volumes/kubernetes.io~csi/pvc-1/mount /csi rw,relatime - ext4 /dev/sda1 rw
2014 2001 8:1 /var/lib/kubelet/pods/4e3f/volumes/kubernetes.io~empty-dir/a /with\040space rw shared:1 master:2 - ext4 /dev/sda1 rw
2015 2001 0:44 / /nfs rw,relatime - nfs4 filer:/kubernetes.io~empty-dir rw
2016 2012 0:291 / /var/lib/countersign/tmp rw,relatime - tmpfs tmpfs rw
2017 2001 8:16 /a /over rw,relatime - ext4 /dev/sdb rw
2018 2001 0:292 / /over rw,relatime - tmpfs tmpfs rw
";

    fn why(path: &str, in_cluster: bool) -> Option<String> {
        unsuitable(POD, Path::new(path), in_cluster)
    }

    #[test]
    fn an_empty_dir_is_refused_wherever_the_process_runs() {
        for path in ["/scratch/a.db", "/scratch/deep/er/a.db", "/with space/a.db", "/nfs/a.db"] {
            for in_cluster in [true, false] {
                assert!(why(path, in_cluster).is_some_and(|why| why.contains("emptyDir")), "{path}");
            }
        }
    }

    #[test]
    fn in_a_pod_state_must_be_on_a_volume() {
        for path in
            ["/a.db", "/home/a.db", "/memory/a.db", "/dev/a.db", "/var/lib/countersign/tmp/a.db", "/over/a.db", "/scratchy"]
        {
            assert!(why(path, true).is_some(), "{path}");
            assert_eq!(why(path, false), None, "{path}");
        }
        for path in ["/var/lib/countersign/a.db", "/csi/a.db", "/var/lib/countersign/tmpfile"] {
            assert_eq!(why(path, true), None, "{path}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_in_a_pod_only() {
        for text in ["", "garbage", "1 2 3 - ", "1 2 8:1 / /elsewhere rw - ext4 /dev/sda1 rw"] {
            assert!(unsuitable(text, Path::new("/a.db"), true).is_some(), "{text}");
            assert_eq!(unsuitable(text, Path::new("/a.db"), false), None, "{text}");
        }
    }
}
