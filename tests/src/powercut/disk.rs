//! Files with an ext4 in them, mounted and unmounted with the system's own tools.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Small, so that a cut takes little; the file is sparse.
const BYTES: u64 = 1 << 30;

/// Why the rig cannot run here, if it cannot.
pub(super) fn missing() -> Option<&'static str> {
    if run("id", &["-u"]).ok().as_deref() != Some("0") {
        return Some("it mounts file systems: it needs root");
    }
    if run("mkfs.ext4", &["-V"]).is_err() {
        return Some("mkfs.ext4 (package e2fsprogs) is missing");
    }
    if run("losetup", &["-f"]).is_err() {
        return Some("there are no loop devices");
    }
    None
}

/// A mounted image; unmounted when dropped.
pub(super) struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    /// Makes an ext4 in a new file and mounts it.
    pub(super) fn create(image: &Path, at: &Path) -> Result<Self> {
        File::create(image).and_then(|file| file.set_len(BYTES)).context("the image")?;
        run("mkfs.ext4", &["-q", "-F", text(image)?])?;
        Self::mount(image, at)
    }

    /// Mounts an image; ext4 replays its journal.
    pub(super) fn mount(image: &Path, at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at).context("the mount point")?;
        run("mount", &["-o", "loop", "-t", "ext4", text(image)?, text(at)?])?;
        Ok(Self { image: image.to_owned(), at: at.to_owned() })
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.at
    }

    /// Copies what its file system has submitted to it so far.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        run("cp", &["--reflink=auto", "--sparse=always", text(&self.image)?, text(to)?]).map(|_| ())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A detached loop device goes with its mount. `-l`: a killed child may still hold a file.
        if let Some(at) = self.at.to_str()
            && let Err(error) = run("umount", &[at]).or_else(|_| run("umount", &["-l", at]))
        {
            eprintln!("{error:#}");
        }
        if let Err(error) = std::fs::remove_file(&self.image).and_then(|()| std::fs::remove_dir(&self.at)) {
            eprintln!("{}: {error}", self.image.display());
        }
    }
}

/// Runs a tool; what it says on standard output.
pub(super) fn run(tool: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool).args(arguments).output().with_context(|| tool.to_owned())?;
    if !output.status.success() {
        bail!("{tool} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
