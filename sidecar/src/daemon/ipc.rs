//! The broker of memory that programs share by IPC handles.
//!
//! The exporting program's executor offers the descriptor of a slab and gets a token; who presents the token is given the descriptor. Offers end
//! when the allocation is freed or the program ends; whoever has opened the memory before that keeps it, as natively. The token
//! is all that protects an offer from the daemon's other programs, so it is random and long; users who may not connect to the daemon cannot
//! present one at all.
//!
//! Called from the threads of the tenants; no call waits for anything but the lock.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::request::IpcMemory;
use lightos_protocol::request::ipc::{IpcPlace, IpcToken};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::executor::control::{IpcDenial, IpcGrant, IpcQuestion};

/// Offers that one program may have at a time: frameworks export large blocks, not single tensors.
const MAX_OFFERS_OF_TENANT: usize = 512;
/// Where the kernel does not say how many descriptors this process may have.
const FEW_DESCRIPTORS: u64 = 1024;

/// Memory that can be opened.
#[derive(Debug)]
struct Offer {
    tenant: u64,
    /// UUID of the device whose memory it is.
    device: [u8; 16],
    place: IpcPlace,
    slab: OwnedFd,
}

/// All offers, by token.
#[derive(Debug)]
pub(super) struct Broker {
    offers: Mutex<HashMap<IpcToken, Offer>>,
    /// Each offer holds a descriptor, and connections need some too.
    max_offers: usize,
}

impl Broker {
    /// No offers yet. Raises this process's limit of descriptors as far as it may.
    pub(super) fn new() -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(FEW_DESCRIPTORS);
        Self::with_room((descriptors / 2).min(1 << 16) as usize)
    }

    fn with_room(max_offers: usize) -> Self {
        Self { offers: Mutex::default(), max_offers }
    }

    /// Answers an executor.
    pub(super) fn answer(
        &self,
        tenant: u64,
        question: IpcQuestion,
        fds: Vec<OwnedFd>,
    ) -> Result<(IpcGrant, Option<OwnedFd>), IpcDenial> {
        match question {
            IpcQuestion::Offer { device, place } => {
                let [slab] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| IpcDenial::Mismatch)?;
                self.offer(Offer { tenant, device, place, slab }).map(|token| (IpcGrant::Token(token), None))
            }
            IpcQuestion::Withdraw { token } => {
                self.withdraw(tenant, &token).map(|()| (IpcGrant::Withdrawn, None))
            }
            IpcQuestion::Open { device, memory } => {
                self.open(tenant, device, &memory).map(|slab| (IpcGrant::Slab, Some(slab)))
            }
        }
    }

    fn offer(&self, offer: Offer) -> Result<IpcToken, IpcDenial> {
        if !offer.place.is_sound() {
            return Err(IpcDenial::Mismatch);
        }
        let token = random_token().map_err(|_| IpcDenial::TooMany)?;
        let mut offers = self.lock();
        let own = offers.values().filter(|other| other.tenant == offer.tenant).count();
        if own >= MAX_OFFERS_OF_TENANT || offers.len() >= self.max_offers {
            return Err(IpcDenial::TooMany);
        }
        offers.insert(token, offer);
        Ok(token)
    }

    fn withdraw(&self, tenant: u64, token: &IpcToken) -> Result<(), IpcDenial> {
        let mut offers = self.lock();
        if offers.get(token).is_none_or(|offer| offer.tenant != tenant) {
            return Err(IpcDenial::Unknown);
        }
        offers.remove(token);
        Ok(())
    }

    fn open(&self, tenant: u64, device: [u8; 16], memory: &IpcMemory) -> Result<OwnedFd, IpcDenial> {
        let offers = self.lock();
        let offer = offers.get(&memory.token).ok_or(IpcDenial::Unknown)?;
        match offer {
            _ if offer.tenant == tenant => Err(IpcDenial::Own),
            _ if offer.place != memory.place => Err(IpcDenial::Mismatch),
            _ if offer.device != device => Err(IpcDenial::OtherDevice),
            _ => offer.slab.try_clone().map_err(|_| IpcDenial::TooMany),
        }
    }

    /// A program has ended, and its offers with it.
    pub(super) fn forget(&self, tenant: u64) {
        self.lock().retain(|_, offer| offer.tenant != tenant);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpcToken, Offer>> {
        // No invariant spans a panic: every critical section is one change of the map.
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_token() -> io::Result<IpcToken> {
    let mut token = IpcToken::default();
    let filled = rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty())
    })?;
    if filled == token.len() { Ok(token) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    const PLACE: IpcPlace = IpcPlace { slab_bytes: 2 << 20, offset: 512, bytes: 1000 };
    const GPU: [u8; 16] = [7; 16];

    fn slab() -> (OwnedFd, u64) {
        let fd = lightos_protocol::mapping::sealed_memfd("test", 4096).unwrap();
        let file = File::from(fd);
        let inode = file.metadata().unwrap().ino();
        (file.into(), inode)
    }

    fn offer(broker: &Broker, tenant: u64) -> Result<(IpcMemory, u64), IpcDenial> {
        let (fd, inode) = slab();
        match broker.answer(tenant, IpcQuestion::Offer { device: GPU, place: PLACE }, vec![fd])? {
            (IpcGrant::Token(token), None) => Ok((IpcMemory { token, place: PLACE }, inode)),
            other => panic!("{other:?}"),
        }
    }

    /// The inode of the file that opening gives.
    fn open(broker: &Broker, tenant: u64, memory: IpcMemory) -> Result<u64, IpcDenial> {
        match broker.answer(tenant, IpcQuestion::Open { device: GPU, memory }, Vec::new())? {
            (IpcGrant::Slab, Some(fd)) => Ok(File::from(fd).metadata().unwrap().ino()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_has_the_token_gets_the_slab_until_it_is_withdrawn() {
        let broker = Broker::with_room(8);
        let (first, inode) = offer(&broker, 1).unwrap();
        let (second, other_inode) = offer(&broker, 1).unwrap();
        assert_ne!(first.token, second.token);
        assert_eq!(open(&broker, 2, first), Ok(inode));
        assert_eq!(open(&broker, 2, first), Ok(inode), "as often as they like");
        assert_eq!(open(&broker, 3, second), Ok(other_inode));
        assert_eq!(open(&broker, 1, first), Err(IpcDenial::Own));
        let withdraw = |tenant| {
            let question = IpcQuestion::Withdraw { token: first.token };
            broker.answer(tenant, question, Vec::new()).map(drop)
        };
        assert_eq!(withdraw(2), Err(IpcDenial::Unknown), "not theirs to end");
        assert_eq!(withdraw(1), Ok(()));
        assert_eq!(withdraw(1), Err(IpcDenial::Unknown));
        assert_eq!(open(&broker, 2, first), Err(IpcDenial::Unknown));
        assert_eq!(open(&broker, 2, second), Ok(other_inode));
        broker.forget(1);
        assert_eq!(open(&broker, 2, second), Err(IpcDenial::Unknown));
        assert!(broker.lock().is_empty());
    }

    #[test]
    fn forged_tokens_places_and_devices_get_nothing() {
        let broker = Broker::with_room(8);
        let (memory, _) = offer(&broker, 1).unwrap();
        for byte in 0..16 {
            let mut forged = memory;
            forged.token[byte] ^= 1;
            assert_eq!(open(&broker, 2, forged), Err(IpcDenial::Unknown));
        }
        let larger = IpcPlace { slab_bytes: 4 << 20, ..PLACE };
        for place in [larger, IpcPlace { offset: 0, ..PLACE }, IpcPlace { bytes: 1001, ..PLACE }] {
            assert_eq!(open(&broker, 2, IpcMemory { place, ..memory }), Err(IpcDenial::Mismatch));
        }
        let elsewhere = IpcQuestion::Open { device: [8; 16], memory };
        assert_eq!(broker.answer(2, elsewhere, Vec::new()).map(drop), Err(IpcDenial::OtherDevice));
        let offer = |place, fds| broker.answer(1, IpcQuestion::Offer { device: GPU, place }, fds).map(drop);
        assert_eq!(offer(PLACE, Vec::new()), Err(IpcDenial::Mismatch), "without a descriptor");
        let beyond = IpcPlace { bytes: 3 << 20, ..PLACE };
        assert_eq!(offer(beyond, vec![slab().0]), Err(IpcDenial::Mismatch));
    }

    #[test]
    fn a_flood_of_offers_stops_at_the_programs_own_bound() {
        let broker = Broker::with_room(MAX_OFFERS_OF_TENANT + 1);
        let made = (0..MAX_OFFERS_OF_TENANT + 5).filter(|_| offer(&broker, 1).is_ok()).count();
        assert_eq!(made, MAX_OFFERS_OF_TENANT);
        let (memory, inode) = offer(&broker, 2).expect("another program is not disturbed");
        assert_eq!(open(&broker, 1, memory), Ok(inode));
        assert_eq!(offer(&broker, 3).unwrap_err(), IpcDenial::TooMany, "no room left for anybody");
        broker.forget(1);
        assert!(offer(&broker, 3).is_ok());
    }
}
