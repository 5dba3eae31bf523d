//! Chunks of shared pinned memory through which pageable bytes pass.
//!
//! A chunk is filled and copied from (upload) or copied to and emptied (download), and is used again once its timeline word shows that the
//! device is done with it. Several chunks are under way at once, so that the processor's copy and the device's overlap. Chunks are
//! made when first needed, [`BLOCK_CHUNKS`] at a time up to [`MAX_CHUNKS`], and kept.
//!
//! A thread that holds chunks never blocks for another one: threads cannot wait for each other in a circle.

use std::collections::VecDeque;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lightos_protocol::record::Memcpy;

use super::{Place, kind};
use crate::ops::host;
use crate::result::CuResult;
use crate::session::{Session, session};

/// Large enough that the device's copy hides the cost of ordering it, small enough for the processor's cache.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// Chunks made at a time.
const BLOCK_CHUNKS: u64 = 4;
/// Most chunks of a process.
const MAX_CHUNKS: usize = 16;
/// Chunks that one download has under way.
const DOWNLOAD_DEPTH: usize = 4;
/// A wait for a chunk polls this long, then sleeps between looks.
const SPIN: Duration = Duration::from_micros(50);

/// A chunk; the device is done with it when `slot` has reached `value`.
#[derive(Debug)]
pub struct Chunk {
    pub address: u64,
    slot: u32,
    value: u32,
}

#[derive(Debug)]
struct Pool {
    idle: VecDeque<Chunk>,
    made: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: VecDeque::new(), made: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chunk {
    /// Has what `push` orders use the chunk until it writes the release word: slot and value. Where it is refused, nothing will write
    /// that, and the chunk is as free as it was.
    pub fn lend(
        &mut self,
        session: &Session,
        push: impl FnOnce((u32, u32)) -> Result<(), CuResult>,
    ) -> Result<(), CuResult> {
        let before = self.value;
        self.value = session.slots().next_value(self.slot);
        push((self.slot, self.value)).inspect_err(|_| self.value = before)
    }

    /// Back to the pool; its last use may still be under way.
    pub fn put_back(self) {
        pool().idle.push_back(self);
    }
}

/// A chunk that the device is done with, if there is one.
fn try_acquire(session: &Session) -> Option<Chunk> {
    let mut pool = pool();
    let ready = pool.idle.iter().position(|chunk| session.reached(chunk.slot, chunk.value))?;
    pool.idle.remove(ready)
}

/// A chunk that the device is done with; more are made, or one is waited for.
pub fn acquire(session: &Session) -> Result<Chunk, CuResult> {
    let start = Instant::now();
    loop {
        if let Some(chunk) = try_acquire(session) {
            return Ok(chunk);
        }
        session.sticky().map_or(Ok(()), Err)?;
        if crate::session::session().is_none() {
            return Err(CuResult::DEINITIALIZED);
        }
        if grow(session)? {
            continue;
        }
        if start.elapsed() < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(SPIN);
        }
    }
}

/// Makes chunks; false when there are enough, or another thread holds what could be made.
fn grow(session: &Session) -> Result<bool, CuResult> {
    let mut pool = pool();
    if pool.made >= MAX_CHUNKS {
        return Ok(false);
    }
    let block = match host::obtain(CHUNK_BYTES * BLOCK_CHUNKS) {
        Ok(block) => block,
        Err(_) if pool.made > 0 => return Ok(false),
        Err(error) => return Err(error),
    };
    for index in 0..BLOCK_CHUNKS {
        let Some(slot) = session.slots().allocate() else { break };
        let value = session.slots().last_value(slot);
        pool.idle.push_back(Chunk { address: block + index * CHUNK_BYTES, slot, value });
        pool.made += 1;
    }
    if pool.made == 0 { Err(CuResult::OUT_OF_MEMORY) } else { Ok(true) }
}

/// Copies pageable memory to memory that the executor reaches. Returns when the source has been read.
pub fn upload(
    session: &Session,
    dst: (u64, Place),
    src: u64,
    bytes: u64,
    stream: u64,
) -> Result<(), CuResult> {
    for (offset, length) in pieces(bytes) {
        let mut chunk = acquire(session)?;
        let address = chunk.address;
        let sent = move_bytes(address, src + offset, length).and_then(|()| {
            chunk.lend(session, |(release_slot, release_value)| {
                let record = Memcpy {
                    dst: dst.0 + offset,
                    src: address,
                    bytes: length,
                    stream,
                    kind: kind(dst.1, Place::Pinned).into(),
                    flags: 0,
                    release_slot,
                    release_value,
                };
                session.send(&record, &[])
            })
        });
        chunk.put_back();
        sent?;
    }
    Ok(())
}

/// Copies memory that the executor reaches to pageable memory. Returns when the destination has been written.
pub fn download(
    session: &Session,
    dst: u64,
    src: (u64, Place),
    bytes: u64,
    stream: u64,
) -> Result<(), CuResult> {
    let order = |chunk: &mut Chunk, (offset, length): (u64, u64)| {
        let address = chunk.address;
        chunk.lend(session, |(release_slot, release_value)| {
            let record = Memcpy {
                dst: address,
                src: src.0 + offset,
                bytes: length,
                stream,
                kind: kind(Place::Pinned, src.1).into(),
                flags: 0,
                release_slot,
                release_value,
            };
            session.send(&record, &[])
        })
    };
    let deliver =
        |chunk: &Chunk, (offset, length): (u64, u64)| move_bytes(dst + offset, chunk.address, length);
    receive(session, pieces(bytes), order, deliver)
}

/// Has chunks filled by the device, piece by piece, and empties them in order. `order` sends the record, `deliver` copies out.
fn receive<P: Copy>(
    session: &Session,
    pieces: impl Iterator<Item = P>,
    order: impl Fn(&mut Chunk, P) -> Result<(), CuResult>,
    deliver: impl Fn(&Chunk, P) -> Result<(), CuResult>,
) -> Result<(), CuResult> {
    let mut pieces = pieces.peekable();
    let mut under_way: VecDeque<(Chunk, P)> = VecDeque::new();
    let mut result = Ok(());
    while result.is_ok() {
        // Only the first chunk is worth waiting for.
        while under_way.len() < DOWNLOAD_DEPTH && result.is_ok() {
            let Some(&piece) = pieces.peek() else { break };
            let chunk = match under_way.is_empty() {
                true => acquire(session).map(Some),
                false => Ok(try_acquire(session)),
            };
            match chunk {
                Ok(Some(mut chunk)) => {
                    pieces.next();
                    result = order(&mut chunk, piece);
                    under_way.push_back((chunk, piece));
                }
                Ok(None) => break,
                Err(error) => result = Err(error),
            }
        }
        let Some((chunk, piece)) = under_way.pop_front() else { break };
        result =
            result.and_then(|()| session.wait(chunk.slot, chunk.value)).and_then(|()| deliver(&chunk, piece));
        chunk.put_back();
    }
    under_way.into_iter().for_each(|(chunk, _)| chunk.put_back());
    result
}

/// Rows of a pitched copy that pass through one chunk: first row and count.
fn row_groups(width: u64, height: u64) -> impl Iterator<Item = (u64, u64)> {
    let rows = (CHUNK_BYTES / width.max(1)).max(1);
    (0..height.div_ceil(rows)).map(move |group| (group * rows, rows.min(height - group * rows)))
}

/// One end of a pitched copy: address and bytes from row to row.
pub type Rows = (u64, u64);

/// As [`upload`] for rows of `width` bytes, at most [`CHUNK_BYTES`] wide, which are packed in the chunk. `order` has the device take a
/// group of them, given by its first row and their number.
pub fn upload_rows(
    session: &Session,
    (src, src_pitch): Rows,
    (width, height): (u64, u64),
    order: impl Fn(&mut Chunk, (u64, u64)) -> Result<(), CuResult>,
) -> Result<(), CuResult> {
    for (first, rows) in row_groups(width, height) {
        let mut chunk = acquire(session)?;
        let sent = (0..rows)
            .try_for_each(|row| {
                move_bytes(chunk.address + row * width, src + (first + row) * src_pitch, width)
            })
            .and_then(|()| order(&mut chunk, (first, rows)));
        chunk.put_back();
        sent?;
    }
    Ok(())
}

/// As [`download`] for rows of `width` bytes, at most [`CHUNK_BYTES`] wide; `order` as in [`upload_rows`].
pub fn download_rows(
    session: &Session,
    (dst, dst_pitch): Rows,
    (width, height): (u64, u64),
    order: impl Fn(&mut Chunk, (u64, u64)) -> Result<(), CuResult>,
) -> Result<(), CuResult> {
    let deliver = |chunk: &Chunk, (first, rows): (u64, u64)| {
        (0..rows).try_for_each(|row| {
            move_bytes(dst + (first + row) * dst_pitch, chunk.address + row * width, width)
        })
    };
    receive(session, row_groups(width, height), order, deliver)
}

fn pieces(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..bytes.div_ceil(CHUNK_BYTES))
        .map(move |index| (index * CHUNK_BYTES, CHUNK_BYTES.min(bytes - index * CHUNK_BYTES)))
}

/// Copies host memory by the processor. The ranges may overlap.
pub fn move_bytes(dst: u64, src: u64, bytes: u64) -> Result<(), CuResult> {
    if session().is_none() {
        return Err(CuResult::DEINITIALIZED);
    }
    let dst = ptr::with_exposed_provenance_mut::<u8>(dst as usize);
    let src = ptr::with_exposed_provenance::<u8>(src as usize);
    // SAFETY: each range is a chunk that this thread holds, or host memory that the program vouches for in the call being served (it
    // was checked not to be null or device memory); natively the driver's own processor copy would touch the same bytes.
    unsafe { ptr::copy(src, dst, bytes as usize) };
    Ok(())
}

/// The program's bytes, for a record.
pub fn bytes_at<'a>(address: u64, bytes: u64) -> Result<&'a [u8], CuResult> {
    if address == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let pointer = ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: host memory that the program vouches for until the call being served returns, which is as long as the slice is used.
    Ok(unsafe { std::slice::from_raw_parts(pointer, bytes as usize) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_once() {
        for bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES - 1] {
            let mut next = 0;
            for (offset, length) in pieces(bytes) {
                assert_eq!(offset, next);
                assert!(length > 0 && length <= CHUNK_BYTES);
                next += length;
            }
            assert_eq!(next, bytes);
        }
    }

    #[test]
    fn row_groups_fit_a_chunk() {
        for (width, height) in [(1, 1), (1000, 5000), (CHUNK_BYTES, 3), (CHUNK_BYTES - 1, 2), (7, 0)] {
            let mut next = 0;
            for (first, rows) in row_groups(width, height) {
                assert_eq!(first, next);
                assert!(rows > 0 && rows * width <= CHUNK_BYTES);
                next += rows;
            }
            assert_eq!(next, height);
        }
    }
}
