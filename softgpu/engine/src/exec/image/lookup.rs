//! From handles in registers to objects whose memory is known to be accessible.
//!
//! A warp keeps the last texture and the last surface that it used. They hold for one epoch of the memory: what is accessible in
//! an epoch stays mapped until the turn that found it ends (see `grace`).

use std::sync::Arc;

use super::{Surface, Texels, Texture};
use crate::exec::op::{Flow, Machine, Op};
use crate::exec::{Fault, Memory};

/// The last objects of a warp, by handle.
#[derive(Debug, Default)]
pub struct ObjectCache {
    epoch: u64,
    texture: Option<(u64, Arc<Texture>)>,
    surface: Option<(u64, Arc<Surface>)>,
}

/// What an instruction can name by handle.
pub trait Object: Sized {
    /// For fault messages.
    const KIND: &'static str;
    fn find(memory: &dyn Memory, handle: u64) -> Option<Arc<Self>>;
    fn slot(cache: &mut ObjectCache) -> &mut Option<(u64, Arc<Self>)>;
    fn texels(&self) -> &Texels;
}

impl Object for Texture {
    const KIND: &'static str = "texture";
    fn find(memory: &dyn Memory, handle: u64) -> Option<Arc<Texture>> {
        memory.texture(handle)
    }
    fn slot(cache: &mut ObjectCache) -> &mut Option<(u64, Arc<Texture>)> {
        &mut cache.texture
    }
    fn texels(&self) -> &Texels {
        &self.texels
    }
}

impl Object for Surface {
    const KIND: &'static str = "surface";
    fn find(memory: &dyn Memory, handle: u64) -> Option<Arc<Surface>> {
        memory.surface(handle)
    }
    fn slot(cache: &mut ObjectCache) -> &mut Option<(u64, Arc<Surface>)> {
        &mut cache.surface
    }
    fn texels(&self) -> &Texels {
        &self.0
    }
}

/// True where every byte of the image is device-accessible. Ranges that adjoin count as one.
fn is_accessible(memory: &dyn Memory, texels: &Texels) -> bool {
    let Some(end) = texels.end() else { return false };
    let mut at = texels.start;
    while at < end {
        match memory.range(at) {
            Some((_, next)) if next > at => at = next,
            _ => return false,
        }
    }
    true
}

impl Machine<'_> {
    /// Takes the object out of the warp's cache, or asks the memory for it.
    fn object<T: Object>(&mut self, handle: u64) -> Option<Arc<T>> {
        let memory = self.grid.environment.memory;
        let (cache, epoch) = (&mut self.warp.objects, memory.epoch());
        if cache.epoch != epoch {
            *cache = ObjectCache { epoch, ..ObjectCache::default() };
        }
        match T::slot(cache).take() {
            Some((known, object)) if known == handle => Some(object),
            _ => T::find(memory, handle).filter(|object| is_accessible(memory, object.texels())),
        }
    }

    /// Calls `work` once for each object that the lanes in `mask` name in slot `op.a`, with those lanes. A handle without an
    /// object, or with memory that is gone, is a fault.
    pub fn with_objects<T: Object>(
        &mut self,
        op: &Op,
        mask: u32,
        mut work: impl FnMut(&mut Self, &T, u32) -> Result<(), Flow>,
    ) -> Result<(), Flow> {
        let handles = *self.longs(op.a);
        let mut left = mask;
        while left != 0 {
            let lane = left.trailing_zeros();
            let handle = handles[lane as usize];
            let same = |lanes: u32, (i, other): (usize, &u64)| lanes | u32::from(*other == handle) << i;
            let group = handles.iter().enumerate().fold(0, same) & left;
            left &= !group;
            let Some(object) = self.object::<T>(handle) else {
                let place = self.place(op, lane);
                return Err(self.fail(Fault::InvalidObject { kind: T::KIND, handle, place }));
            };
            let done = work(self, &object, group);
            *T::slot(&mut self.warp.objects) = Some((handle, object));
            done?;
        }
        Ok(())
    }
}
