//! Contexts and primary contexts.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use crate::abi::CtxCreateParams;
use crate::context::{self, VALID_FLAGS};
use crate::device::Device;
use crate::edge::{exports, put, put_some};
use crate::error::{Error, Result};
use crate::stream::GREATEST_PRIORITY;
use crate::{capture, event};

/// `CU_CTX_MAP_HOST`: on hardware every context reports it.
const MAP_HOST: u32 = 8;

/// API versions of the entry points that create contexts.
const V2: u32 = 3020;
const V3: u32 = 11040;
const V4: u32 = 12050;

/// # Safety
/// `out` is null or valid for writing.
unsafe fn create(out: *mut u64, flags: u32, device: c_int, version: u32) -> Result {
    if out.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    let context = context::create(Device::new(device)?, flags, version)?;
    // SAFETY: not null, so valid by this function's contract.
    unsafe { put(out, context.handle) }
}

fn synchronize(handle: u64) -> Result {
    let context = context::find(handle)?;
    context::current()?;
    capture::forbid_all()?;
    context.synchronize()
}

exports! { TABLE:
    entry cuCtxCreate_v2: (context: *mut u64, flags: u32, device: c_int) { create(context, flags, device, V2) }
    entry cuCtxCreate_v3: (context: *mut u64, _affinity: *const c_void, count: c_int, flags: u32, device: c_int) {
        if count != 0 { Err(Error::UNSUPPORTED_EXEC_AFFINITY) } else { create(context, flags, device, V3) }
    }
    entry cuCtxCreate_v4: (context: *mut u64, params: *const CtxCreateParams, flags: u32, device: c_int) {
        if !params.is_null() {
            let params = params.read_unaligned();
            if params.affinity_count != 0 {
                return Err(Error::UNSUPPORTED_EXEC_AFFINITY);
            }
            if !params.cig.is_null() {
                return Err(Error::NOT_SUPPORTED);
            }
        }
        create(context, flags, device, V4)
    }
    entry cuCtxDestroy_v2: (context: u64) { context::destroy(context) }
    entry cuCtxPushCurrent_v2: (context: u64) { context::push(context) }
    entry cuCtxPopCurrent_v2: (context: *mut u64) {
        let popped = context::pop()?;
        put_some(context, popped);
        Ok(())
    }
    entry cuCtxSetCurrent: (context: u64) { context::set_current(context) }
    entry cuCtxGetCurrent: (context: *mut u64) { put(context, context::current_handle()) }
    entry cuCtxGetDevice: (device: *mut c_int) { put(device, context::current()?.device.ordinal()) }
    entry cuCtxGetDevice_v2: (device: *mut c_int, context: u64) {
        put(device, context::find(context)?.device.ordinal())
    }
    entry cuCtxGetFlags: (flags: *mut u32) { put(flags, context::current()?.flags.load(Ordering::Relaxed) | MAP_HOST) }
    entry cuCtxSetFlags: (flags: u32) {
        let context = context::current()?;
        if flags & !VALID_FLAGS != 0 || flags & 7 > 4 || flags & 7 == 3 {
            return Err(Error::INVALID_VALUE);
        }
        context.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }
    entry cuCtxGetId: (context: u64, id: *mut u64) { put(id, context::find(context)?.id) }
    entry cuCtxGetApiVersion: (context: u64, version: *mut u32) { put(version, context::find(context)?.api_version) }
    entry cuCtxGetLimit: (value: *mut usize, limit: u32) { put(value, context::current()?.limit(limit)?) }
    entry cuCtxSetLimit: (limit: u32, value: usize) { context::current()?.set_limit(limit, value) }
    entry cuCtxGetCacheConfig: (config: *mut u32) {
        put(config, context::current()?.cache_config.load(Ordering::Relaxed))
    }
    entry cuCtxSetCacheConfig: (config: u32) {
        let context = context::current()?;
        if config > 3 {
            return Err(Error::INVALID_VALUE);
        }
        context.cache_config.store(config, Ordering::Relaxed);
        Ok(())
    }
    entry cuCtxGetSharedMemConfig: (config: *mut u32) {
        put(config, context::current()?.shared_config.load(Ordering::Relaxed))
    }
    entry cuCtxSetSharedMemConfig: (config: u32) {
        context::current()?;
        // Bank sizes are fixed since Maxwell; the call is accepted and has no effect.
        if config > 2 { Err(Error::INVALID_VALUE) } else { Ok(()) }
    }
    entry cuCtxGetStreamPriorityRange: (least: *mut c_int, greatest: *mut c_int) {
        context::current()?;
        put_some(least, 0);
        put_some(greatest, GREATEST_PRIORITY);
        Ok(())
    }
    entry cuCtxGetExecAffinity: (_affinity: *mut c_void, kind: u32) {
        context::current()?;
        Err(if kind == 0 { Error::UNSUPPORTED_EXEC_AFFINITY } else { Error::INVALID_VALUE })
    }
    entry cuCtxResetPersistingL2Cache: () { context::current().map(drop) }
    entry cuCtxSynchronize: () { synchronize(0) }
    entry cuCtxSynchronize_v2: (context: u64) { synchronize(context) }
    entry cuCtxRecordEvent: (context: u64, event: u64) {
        let context = context::find(context)?;
        event::record(&event::find(event)?, &context.legacy_stream(), 0)
    }
    entry cuCtxWaitEvent: (context: u64, event: u64) {
        let (context, event) = (context::find(context)?, event::find(event)?);
        context.all_streams().iter().try_for_each(|stream| event::make_wait(stream, &event, 0))
    }
    entry cuCtxEnablePeerAccess: (peer: u64, flags: u32) {
        let own = context::current()?;
        if peer == 0 {
            return Err(Error::INVALID_CONTEXT);
        }
        let peer = context::find(peer)?;
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        if own.device == peer.device { Err(Error::PEER_ACCESS_UNSUPPORTED) } else { own.enable_peer(peer.handle) }
    }
    entry cuCtxDisablePeerAccess: (peer: u64) { context::current()?.disable_peer(peer) }
    entry cuDevicePrimaryCtxRetain: (context: *mut u64, device: c_int) {
        let device = Device::new(device)?;
        if context.is_null() { Err(Error::INVALID_VALUE) } else { put(context, context::retain_primary(device)?) }
    }
    entry cuDevicePrimaryCtxRelease_v2: (device: c_int) { context::release_primary(Device::new(device)?) }
    entry cuDevicePrimaryCtxRelease: (device: c_int) { context::release_primary(Device::new(device)?) }
    entry cuDevicePrimaryCtxReset_v2: (device: c_int) {
        context::reset_primary(Device::new(device)?);
        Ok(())
    }
    entry cuDevicePrimaryCtxReset: (device: c_int) {
        context::reset_primary(Device::new(device)?);
        Ok(())
    }
    entry cuDevicePrimaryCtxGetState: (device: c_int, flags: *mut u32, active: *mut c_int) {
        let (held, is_active) = context::primary_state(Device::new(device)?);
        put(flags, held)?;
        put(active, c_int::from(is_active))
    }
    entry cuDevicePrimaryCtxSetFlags_v2: (device: c_int, flags: u32) {
        context::set_primary_flags(Device::new(device)?, flags)
    }
    entry cuDevicePrimaryCtxSetFlags: (device: c_int, flags: u32) {
        let device = Device::new(device)?;
        if context::primary_state(device).1 { Err(Error::PRIMARY_CONTEXT_ACTIVE) } else {
            context::set_primary_flags(device, flags)
        }
    }
}
