//! Where the parts lie: the socket, the library to preload, the software GPU's libraries.
//!
//! An installed LightOS is one folder (`lightos`, `liblightos_intercept.so`, `softgpu/`); a build folder of cargo has
//! the same files under cargo's names. Both are found relative to the running binary; environment variables override.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Overrides the path of the library to preload.
pub const INTERCEPT_VARIABLE: &str = "LIGHTOS_INTERCEPT";
/// Overrides the folder with the software GPU's `libcuda.so.1` and `libnvidia-ml.so.1`.
pub const SOFTGPU_VARIABLE: &str = "SOFTGPU_LIB_DIR";
/// Overrides the socket's path, for the daemon and its clients alike.
pub const SOCKET_VARIABLE: &str = "LIGHTOS_SOCKET";

const INTERCEPT: &str = "liblightos_intercept.so";

/// What could not be found, and where it was looked for.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("cannot find {INTERCEPT}: looked at {}; set {INTERCEPT_VARIABLE} to its path", looked.display())]
    NoIntercept { looked: PathBuf },
    #[error("{INTERCEPT_VARIABLE} names {}, which is not a file", path.display())]
    BadIntercept { path: PathBuf },
    #[error(
        "cannot find the software GPU (softgpu/libcuda.so.1): looked in {}; set {SOFTGPU_VARIABLE} to its folder",
        looked.display()
    )]
    NoSoftgpu { looked: PathBuf },
    #[error("{SOFTGPU_VARIABLE} names {}, which holds no libcuda.so.1", path.display())]
    BadSoftgpu { path: PathBuf },
    #[error("cannot make the folder {} for the software GPU: {source}", path.display())]
    Link { path: PathBuf, source: std::io::Error },
    #[error("cannot find the running binary: {0}")]
    Binary(std::io::Error),
    #[error("{} contains a character that LD_PRELOAD and LD_LIBRARY_PATH cannot carry (':' or white space)", .0.display())]
    Separator(PathBuf),
}

/// The socket paths that are tried in order: `$LIGHTOS_SOCKET` alone where set, else /run, else the user's runtime folder.
pub fn socket_candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    std::iter::once(PathBuf::from("/run")).chain(user).map(|base| base.join("lightos/lightos.sock")).collect()
}

/// The running binary's path and folder.
pub fn binary() -> Result<(PathBuf, PathBuf), LayoutError> {
    let path = std::env::current_exe().map_err(LayoutError::Binary)?;
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok((path, folder))
}

/// The absolute path of the library to preload.
pub fn intercept() -> Result<PathBuf, LayoutError> {
    let path = match std::env::var_os(INTERCEPT_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            path.canonicalize()
                .ok()
                .filter(|found| found.is_file())
                .ok_or(LayoutError::BadIntercept { path })?
        }
        None => {
            let looked = binary()?.1.join(INTERCEPT);
            if !looked.is_file() {
                return Err(LayoutError::NoIntercept { looked });
            }
            looked
        }
    };
    listable(path)
}

/// The folder to put first on the library path so that the software GPU is the driver.
pub fn softgpu() -> Result<PathBuf, LayoutError> {
    if let Some(path) = std::env::var_os(SOFTGPU_VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let found = path.canonicalize().ok().filter(|found| found.join("libcuda.so.1").is_file());
        let found = found.ok_or(LayoutError::BadSoftgpu { path })?;
        name_for_development(&found);
        return listable(found);
    }
    softgpu_beside(&binary()?.1).and_then(listable)
}

/// `folder/softgpu` as installed, or made from links to cargo's `libcuda.so` and `libnvidia_ml.so` in `folder`.
fn softgpu_beside(folder: &Path) -> Result<PathBuf, LayoutError> {
    let libraries = folder.join("softgpu");
    for (built, name) in [("libcuda.so", "libcuda.so.1"), ("libnvidia_ml.so", "libnvidia-ml.so.1")] {
        if !folder.join(built).is_file() {
            continue;
        }
        std::fs::create_dir_all(&libraries)
            .map_err(|source| LayoutError::Link { path: libraries.clone(), source })?;
        let link = libraries.join(name);
        if link.exists() {
            continue;
        }
        match std::os::unix::fs::symlink(Path::new("..").join(built), &link) {
            // Another process may have made it meanwhile.
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(LayoutError::Link { path: link, source });
            }
            _ => {}
        }
    }
    if libraries.join("libcuda.so.1").is_file() {
        name_for_development(&libraries);
        Ok(libraries)
    } else {
        Err(LayoutError::NoSoftgpu { looked: libraries })
    }
}

/// Gives the driver in `folder` its development name too, which cudarc asks for first: it must not find another driver of the
/// machine under that name. An installation has the link already, so one that cannot be written to is fine.
fn name_for_development(folder: &Path) {
    let _ = std::os::unix::fs::symlink("libcuda.so.1", folder.join("libcuda.so"));
}

/// `path` unless the loader's lists would split it.
fn listable(path: PathBuf) -> Result<PathBuf, LayoutError> {
    let text = path.as_os_str().as_encoded_bytes();
    if text.iter().any(|byte| *byte == b':' || byte.is_ascii_whitespace()) {
        return Err(LayoutError::Separator(path));
    }
    Ok(path)
}

/// `first`, then the colon-separated `rest` where there is one.
pub fn prepend(first: &Path, rest: Option<&OsStr>) -> OsString {
    let mut list = first.as_os_str().to_owned();
    if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
        list.push(":");
        list.push(rest);
    }
    list
}

/// The library path `list` without the folders of the CUDA toolkit's stubs. They hold a `libcuda.so` to link against, which the loader
/// would take for the driver and which refuses to start.
pub fn without_stubs(list: &OsStr) -> OsString {
    let folders = std::env::split_paths(list).filter(|folder| !folder.ends_with("stubs"));
    std::env::join_paths(folders).unwrap_or_else(|_| list.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stub_folders_are_left_out() {
        let list = OsStr::new("/usr/local/cuda/lib64/stubs:/a:/cuda/stubs/:/b stubs");
        assert_eq!(without_stubs(list), "/a:/b stubs");
        assert_eq!(without_stubs(OsStr::new("")), "");
    }

    #[test]
    fn a_build_folder_becomes_a_library_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(softgpu_beside(folder.path()), Err(LayoutError::NoSoftgpu { .. })));
        std::fs::write(folder.path().join("libcuda.so"), "driver").unwrap();
        let libraries = softgpu_beside(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(libraries.join("libcuda.so.1")).unwrap(), "driver");
        assert_eq!(std::fs::read_to_string(libraries.join("libcuda.so")).unwrap(), "driver");
        assert!(!libraries.join("libnvidia-ml.so.1").exists());
        std::fs::write(folder.path().join("libnvidia_ml.so"), "nvml").unwrap();
        softgpu_beside(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(libraries.join("libnvidia-ml.so.1")).unwrap(), "nvml");
    }

    #[test]
    fn lists_keep_what_was_there() {
        assert_eq!(prepend(Path::new("/a"), None), "/a");
        assert_eq!(prepend(Path::new("/a"), Some(OsStr::new(""))), "/a");
        assert_eq!(prepend(Path::new("/a"), Some(OsStr::new("b c:d"))), "/a:b c:d");
    }

    #[test]
    fn paths_that_a_list_would_split_are_refused() {
        assert!(listable(PathBuf::from("/a b/x.so")).is_err());
        assert!(listable(PathBuf::from("/a:b/x.so")).is_err());
        assert!(listable(PathBuf::from("/a/x.so")).is_ok());
    }
}
