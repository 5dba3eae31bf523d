//! Cold calls about modules, libraries and functions.

use serde::{Deserialize, Serialize};

use super::Tag;

/// A call about code. Handles are the client's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModuleRequest {
    /// Load an image; answers [`Reply::Loaded`](super::Reply::Loaded), or fails with the JIT's error log as text.
    Load {
        /// `CUmodule` or `CUlibrary` that the client's driver made for the same image.
        module: u64,
        /// Tag of a file with the image (ELF, fatbin or PTX; PTX with its final NUL): a sealed memfd, or the regular file that the client
        /// has it mapped from.
        blob_tag: Tag,
        /// Where the image begins in the file, in bytes.
        offset: u64,
        /// Size of the image in bytes.
        bytes: u64,
        /// True for cuLibraryLoad*.
        library: bool,
        /// `CUjit_option` and value, those whose value is a plain number; log buffers are the executor's own.
        options: Vec<(u32, u64)>,
    },
    /// The primary context has ended: the library is loaded anew at its next use, as the driver does for each context, and its functions are announced
    /// again.
    Renew {
        /// The client's `CUlibrary`.
        library: u64,
    },
    /// cuModuleUnload or cuLibraryUnload.
    Unload {
        /// The handle.
        module: u64,
        /// True for a `CUlibrary`.
        library: bool,
    },
    /// A function or kernel is about to be used: know the executor's counterpart under the client's handle.
    Function {
        /// The client's `CUfunction` or `CUkernel`.
        function: u64,
        /// Where it comes from.
        module: u64,
        /// Its name.
        name: String,
        /// True when `module` is a `CUlibrary`.
        library: bool,
    },
    /// cuLibraryGetModule: the `CUmodule` of a library already known.
    LibraryModule {
        /// The client's `CUmodule`.
        module: u64,
        /// The client's `CUlibrary`.
        library: u64,
    },
    /// cuFuncSetAttribute or cuKernelSetAttribute.
    FunctionAttribute {
        /// The handle.
        function: u64,
        /// `CUfunction_attribute`.
        attribute: u32,
        /// Its value.
        value: i32,
    },
    /// cuFuncSetCacheConfig or cuKernelSetCacheConfig.
    FunctionCacheConfig {
        /// The handle.
        function: u64,
        /// `CUfunc_cache`.
        config: u32,
    },
}
