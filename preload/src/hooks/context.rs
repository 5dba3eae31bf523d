//! Hooks of the functions that change which context is current or whether it exists. Contexts are the local driver's.

use super::hooks;
use crate::edge::In;
use crate::ops::context::{changed_here, configure, destroy, detach, made_on, release_primary};
use lightos_protocol::request::ContextRequest;

hooks! {
    area context;
    fn cuCtxSetLimit(limit: u32, value: usize) => configure(
        ContextRequest::SetLimit { limit, value: value as u64 }, || real::cuCtxSetLimit(limit, value),
    );
    fn cuCtxSetCacheConfig(config: u32)
        => configure(ContextRequest::SetCacheConfig { config }, || real::cuCtxSetCacheConfig(config));
    fn cuCtxResetPersistingL2Cache()
        => configure(ContextRequest::ResetPersistingL2Cache, || real::cuCtxResetPersistingL2Cache());
    fn cuCtxSetCurrent(context: u64) => changed_here(real::cuCtxSetCurrent(context));
    fn cuCtxPushCurrent(context: u64) => changed_here(real::cuCtxPushCurrent(context));
    fn cuCtxPushCurrent_v2(context: u64) => changed_here(real::cuCtxPushCurrent_v2(context));
    fn cuCtxPopCurrent(context: *mut u64) => changed_here(real::cuCtxPopCurrent(context));
    fn cuCtxPopCurrent_v2(context: *mut u64) => changed_here(real::cuCtxPopCurrent_v2(context));
    fn cuCtxCreate(context: *mut u64, flags: u32, device: i32) => made_on(In::new(context.cast_const()), device, || real::cuCtxCreate(context, flags, device));
    fn cuCtxCreate_v2(context: *mut u64, flags: u32, device: i32) => made_on(In::new(context.cast_const()), device, || real::cuCtxCreate_v2(context, flags, device));
    fn cuCtxCreate_v3(context: *mut u64, affinity: *const u8, count: i32, flags: u32, device: i32)
        => made_on(In::new(context.cast_const()), device, || real::cuCtxCreate_v3(context, affinity, count, flags, device));
    fn cuCtxCreate_v4(context: *mut u64, parameters: *const u8, flags: u32, device: i32)
        => made_on(In::new(context.cast_const()), device, || real::cuCtxCreate_v4(context, parameters, flags, device));
    fn cuCtxAttach(context: *mut u64, flags: u32) => changed_here(real::cuCtxAttach(context, flags));
    fn cuCtxDetach(context: u64) => detach(context, || real::cuCtxDetach(context));
    fn cuCtxDestroy(context: u64) => destroy(context, || real::cuCtxDestroy(context));
    fn cuCtxDestroy_v2(context: u64) => destroy(context, || real::cuCtxDestroy_v2(context));
    fn cuDevicePrimaryCtxRetain(context: *mut u64, device: i32) => made_on(In::new(context.cast_const()), device, || real::cuDevicePrimaryCtxRetain(context, device));
    fn cuDevicePrimaryCtxRelease(device: i32) => release_primary(device, || real::cuDevicePrimaryCtxRelease(device));
    fn cuDevicePrimaryCtxRelease_v2(device: i32) => release_primary(device, || real::cuDevicePrimaryCtxRelease_v2(device));
    fn cuDevicePrimaryCtxReset(device: i32) => release_primary(device, || real::cuDevicePrimaryCtxReset(device));
    fn cuDevicePrimaryCtxReset_v2(device: i32) => release_primary(device, || real::cuDevicePrimaryCtxReset_v2(device));
}
