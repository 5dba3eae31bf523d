//! `cuGetProcAddress`: from a name without suffix, a CUDA version and the stream flag to an entry point.
//!
//! The exported symbol with the highest version that is not above the requested one wins. Versions that matter are those
//! of names with several ABIs; a name that is not listed has been there since its only form was exported.

use std::ffi::CStr;
use std::sync::LazyLock;

use lightos_softgpu_engine::profile::CUDA_VERSION;
use rustc_hash::FxHashMap;

use crate::api;
use crate::error::{Error, Result};

/// `CUdriverProcAddressQueryResult`.
const FOUND: u32 = 0;
const SYMBOL_NOT_FOUND: u32 = 1;
const VERSION_NOT_SUFFICIENT: u32 = 2;
/// `CU_GET_PROC_ADDRESS_LEGACY_STREAM` and `PER_THREAD_DEFAULT_STREAM`.
const LEGACY_STREAM: u64 = 1;
const PER_THREAD_STREAM: u64 = 2;

/// The outcome of a look-up.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub address: Option<*const ()>,
    pub status: u32,
}

/// One ABI of a base name.
#[derive(Clone, Copy, Debug)]
struct Form {
    since: i32,
    legacy: Option<*const ()>,
    per_thread: Option<*const ()>,
}

// SAFETY: the pointers are addresses of functions of this library.
unsafe impl Send for Form {}
// SAFETY: as above.
unsafe impl Sync for Form {}

/// Looks a base name up. A version above the driver's is an invalid value.
pub fn find(symbol: &CStr, version: i32, flags: u64) -> Result<Found> {
    if symbol.is_empty()
        || version <= 0
        || version > CUDA_VERSION
        || flags & !(LEGACY_STREAM | PER_THREAD_STREAM) != 0
    {
        return Err(Error::INVALID_VALUE);
    }
    if flags == LEGACY_STREAM | PER_THREAD_STREAM {
        return Err(Error::INVALID_VALUE);
    }
    let Some(forms) = symbol.to_str().ok().and_then(|name| FORMS.get(name)) else {
        return Ok(Found { address: None, status: SYMBOL_NOT_FOUND });
    };
    let Some(form) = forms.iter().rev().find(|form| form.since <= version) else {
        return Ok(Found { address: None, status: VERSION_NOT_SUFFICIENT });
    };
    let address = match flags {
        PER_THREAD_STREAM => form.per_thread.or(form.legacy),
        _ => form.legacy.or(form.per_thread),
    };
    Ok(Found { address, status: FOUND })
}

/// Base names and their ABIs in ascending order of version.
static FORMS: LazyLock<FxHashMap<String, Vec<Form>>> = LazyLock::new(|| {
    let mut forms: FxHashMap<String, Vec<Form>> = FxHashMap::default();
    for export in
        api::exports().filter(|export| export.name.starts_with("cu") && !export.name.starts_with("cudbg"))
    {
        let (name, per_thread) = match export.name.strip_suffix("_ptsz").or(export.name.strip_suffix("_ptds"))
        {
            Some(name) => (name, true),
            None => (export.name, false),
        };
        let (base, abi) = split(name);
        let since = since(base, abi);
        let list = forms.entry(base.to_owned()).or_default();
        let at = list.iter().position(|form| form.since == since).unwrap_or_else(|| {
            list.push(Form { since, legacy: None, per_thread: None });
            list.len() - 1
        });
        let slot = if per_thread { &mut list[at].per_thread } else { &mut list[at].legacy };
        *slot = Some(export.address);
    }
    for list in forms.values_mut() {
        list.sort_by_key(|form| form.since);
    }
    // `cuGraphInstantiate` changed its ABI without a suffix of its own: since 12.0 it is the form with flags.
    if let Some(with_flags) = forms.get("cuGraphInstantiateWithFlags").and_then(|list| list.first()).copied()
        && let Some(list) = forms.get_mut("cuGraphInstantiate")
    {
        list.push(Form { since: 12000, ..with_flags });
    }
    forms
});

/// A name and the number of its ABI suffix; 1 for none.
fn split(name: &str) -> (&str, u32) {
    match name.rsplit_once("_v").map(|(base, number)| (base, number.parse())) {
        Some((base, Ok(number))) => (base, number),
        _ => (name, 1),
    }
}

/// The CUDA version that introduced an ABI of a name, encoded as 1000 times major plus 10 times minor.
fn since(base: &str, abi: u32) -> i32 {
    let known = VERSIONS.iter().find(|(name, _)| *name == base).map(|(_, versions)| *versions);
    match (known, abi) {
        (Some(versions), abi) => versions.get(abi as usize - 1).copied().unwrap_or(CUDA_VERSION),
        (None, 1) => 2000,
        // The second forms of CUDA 3.2 widened addresses and sizes to 64 bits.
        (None, 2) => 3020,
        (None, _) => CUDA_VERSION,
    }
}

/// The versions of each ABI, first to last, of the names that are not covered by the rule in [`since`].
const VERSIONS: &[(&str, &[i32])] = &[
    ("cuCtxCreate", &[2000, 3020, 11040, 12050]),
    ("cuCtxDestroy", &[2000, 4000]),
    ("cuCtxGetDevice", &[2000, 13000]),
    ("cuCtxPopCurrent", &[2000, 4000]),
    ("cuCtxPushCurrent", &[2000, 4000]),
    ("cuCtxSynchronize", &[2000, 13000]),
    ("cuDeviceGetUuid", &[9020, 11040]),
    ("cuDevicePrimaryCtxRelease", &[7000, 11000]),
    ("cuDevicePrimaryCtxReset", &[7000, 11000]),
    ("cuDevicePrimaryCtxSetFlags", &[7000, 11000]),
    ("cuEventDestroy", &[2000, 4000]),
    ("cuEventElapsedTime", &[2000, 12080]),
    ("cuGetProcAddress", &[11030, 12000]),
    ("cuGraphAddDependencies", &[10000, 12030]),
    ("cuGraphAddKernelNode", &[10000, 12000]),
    ("cuGraphAddNode", &[12020, 12030]),
    ("cuGraphExecKernelNodeSetParams", &[10010, 12000]),
    ("cuGraphExecUpdate", &[10020, 12000]),
    ("cuGraphGetEdges", &[10000, 12030]),
    ("cuGraphInstantiate", &[10000, 11000]),
    ("cuGraphInstantiateWithFlags", &[11040]),
    ("cuGraphInstantiateWithParams", &[12000]),
    ("cuGraphKernelNodeGetParams", &[10000, 12000]),
    ("cuGraphKernelNodeSetParams", &[10000, 12000]),
    ("cuGraphNodeGetDependencies", &[10000, 12030]),
    ("cuGraphNodeGetDependentNodes", &[10000, 12030]),
    ("cuGraphRemoveDependencies", &[10000, 12030]),
    ("cuGraphicsResourceSetMapFlags", &[3000, 6050]),
    ("cuGLGetDevices", &[4010, 6050]),
    ("cuIpcOpenMemHandle", &[4010, 11000]),
    ("cuFuncGetParamInfo", &[12040]),
    ("cuKernelGetParamInfo", &[12040]),
    ("cuLaunchKernelEx", &[11060]),
    ("cuLibraryGetKernelCount", &[12040]),
    ("cuLibraryLoadData", &[12000]),
    ("cuLinkAddData", &[5050, 6050]),
    ("cuLinkAddFile", &[5050, 6050]),
    ("cuLinkCreate", &[5050, 6050]),
    ("cuMemAdvise", &[8000, 12020]),
    ("cuMemHostRegister", &[4000, 6050]),
    ("cuMemPrefetchAsync", &[8000, 12020]),
    ("cuMemcpy3DBatchAsync", &[12080, 13000]),
    ("cuMemcpyBatchAsync", &[12080, 13000]),
    ("cuStreamBatchMemOp", &[8000, 11070]),
    ("cuStreamBeginCapture", &[10000, 10010]),
    ("cuStreamDestroy", &[2000, 4000]),
    ("cuStreamGetCaptureInfo", &[10010, 11030, 12030]),
    ("cuStreamGetCtx", &[9020, 12050]),
    ("cuStreamUpdateCaptureDependencies", &[11030, 12030]),
    ("cuStreamWaitValue32", &[8000, 11070]),
    ("cuStreamWaitValue64", &[9000, 11070]),
    ("cuStreamWriteValue32", &[8000, 11070]),
    ("cuStreamWriteValue64", &[9000, 11070]),
    ("cuTexRefSetAddress2D", &[2000, 3020, 4010]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(found: Found) -> &'static str {
        let address = found.address.unwrap();
        api::exports().find(|export| export.address == address).unwrap().name
    }

    #[test]
    fn the_version_picks_the_abi() {
        for (symbol, version, name) in [
            (c"cuCtxCreate", 12000, "cuCtxCreate_v3"),
            (c"cuCtxCreate", 13000, "cuCtxCreate_v4"),
            (c"cuCtxCreate", 4000, "cuCtxCreate_v2"),
            (c"cuMemAlloc", 13000, "cuMemAlloc_v2"),
            (c"cuStreamGetCaptureInfo", 12020, "cuStreamGetCaptureInfo_v2"),
            (c"cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags"),
            (c"cuGetProcAddress", 11040, "cuGetProcAddress"),
            (c"cuGetProcAddress", 12000, "cuGetProcAddress_v2"),
        ] {
            assert_eq!(name_of(find(symbol, version, 0).unwrap()), name, "{symbol:?} {version}");
        }
    }

    #[test]
    fn the_flag_picks_the_stream() {
        assert_eq!(name_of(find(c"cuLaunchKernel", 12000, 2).unwrap()), "cuLaunchKernel_ptsz");
        assert_eq!(name_of(find(c"cuMemcpyHtoD", 12000, 2).unwrap()), "cuMemcpyHtoD_v2_ptds");
        assert_eq!(name_of(find(c"cuMemAlloc", 12000, 2).unwrap()), "cuMemAlloc_v2");
        assert_eq!(name_of(find(c"cuLaunchKernel", 12000, 1).unwrap()), "cuLaunchKernel");
        assert_eq!(find(c"cuInit", 12000, 4).unwrap_err(), Error::INVALID_VALUE);
    }

    #[test]
    fn misses_say_why() {
        assert_eq!(find(c"cuNoSuchThing", 12000, 0).unwrap().status, SYMBOL_NOT_FOUND);
        assert_eq!(find(c"cuLaunchKernelEx", 11000, 0).unwrap().status, VERSION_NOT_SUFFICIENT);
        assert_eq!(find(c"cuInit", CUDA_VERSION + 10, 0).unwrap_err(), Error::INVALID_VALUE);
    }
}
