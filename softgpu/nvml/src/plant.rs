//! Temperature, power, clocks and utilisation of a device, from the time that its processes kept it busy.
//!
//! A first-order law: power grows linearly with utilisation from the idle power to the limit, the die tends to 28 C plus 0.06 C
//! per watt with a time constant of 8 s, and the SM clock is at its maximum while there is work. Utilisation is busy time over
//! wall time since the previous sample, which is at least 100 ms old, as NVML's own figure is; work counts when it ends.
//! Energy needs no history: idle power since boot plus the busy time's share, so all processes agree on it.

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use lightos_softgpu_engine::profile::{MAX_DEVICES, Machine, Profile};
use lightos_softgpu_engine::state::State;

const SAMPLE_PERIOD: Duration = Duration::from_millis(100);
const AMBIENT_C: f64 = 28.0;
const C_PER_WATT: f64 = 0.06;
const TIME_CONSTANT_S: f64 = 8.0;
/// SM clock with nothing to do, MHz.
const IDLE_CLOCK_MHZ: u32 = 345;

/// What the sensors say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// 0 to 1.
    pub utilisation: f64,
    pub temperature_c: f64,
    pub power_mw: u32,
    pub sm_clock_mhz: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    busy_ns: u64,
    reading: Reading,
}

static LAST: LazyLock<Mutex<[Option<Sample>; MAX_DEVICES]>> = LazyLock::new(Mutex::default);

fn busy_ns(ordinal: usize) -> u64 {
    State::get().map_or(0, |state| state.busy_ns(ordinal))
}

fn reading(profile: &Profile, utilisation: f64, temperature_c: f64) -> Reading {
    let (_, limit_mw, _) = profile.power_limit_mw;
    let power_mw =
        f64::from(profile.idle_power_mw) + utilisation * f64::from(limit_mw - profile.idle_power_mw);
    let sm_clock_mhz = if utilisation > 0.0 { profile.sm_clock_mhz } else { IDLE_CLOCK_MHZ };
    Reading { utilisation, temperature_c, power_mw: power_mw as u32, sm_clock_mhz }
}

fn steady_c(power_mw: u32) -> f64 {
    AMBIENT_C + C_PER_WATT * f64::from(power_mw) / 1000.0
}

/// The next sample after `last`.
fn advance(profile: &Profile, last: Option<Sample>, at: Instant, busy_ns: u64) -> Sample {
    let reading = match last {
        None => {
            let idle = reading(profile, 0.0, 0.0);
            Reading { temperature_c: steady_c(idle.power_mw), ..idle }
        }
        Some(last) => {
            let wall_s = (at - last.at).as_secs_f64();
            let busy_s = busy_ns.saturating_sub(last.busy_ns) as f64 / 1e9;
            let next = reading(profile, (busy_s / wall_s).clamp(0.0, 1.0), 0.0);
            let target = steady_c(next.power_mw);
            let decay = (-wall_s / TIME_CONSTANT_S).exp();
            Reading { temperature_c: target + (last.reading.temperature_c - target) * decay, ..next }
        }
    };
    Sample { at, busy_ns, reading }
}

/// The device's sensors now.
pub fn read(ordinal: usize) -> Reading {
    let mut all = LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let now = Instant::now();
    let slot = &mut all[ordinal];
    match slot {
        Some(last) if now - last.at < SAMPLE_PERIOD => last.reading,
        _ => slot.insert(advance(Machine::get().profile, *slot, now, busy_ns(ordinal))).reading,
    }
}

/// Energy since boot in millijoules; it never runs backwards.
pub fn energy_mj(ordinal: usize) -> u64 {
    let profile = Machine::get().profile;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock writes the live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    let up_s = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let swing_mw = f64::from(profile.power_limit_mw.1 - profile.idle_power_mw);
    (f64::from(profile.idle_power_mw) * up_s + swing_mw * busy_ns(ordinal) as f64 / 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_heats_the_device_and_idleness_cools_it() {
        let profile = Profile::named("h100").unwrap();
        let start = Instant::now();
        let idle = advance(profile, None, start, 0);
        assert_eq!((idle.reading.power_mw, idle.reading.sm_clock_mhz), (70_000, 345));
        let mut sample = idle;
        for second in 1..=60u64 {
            sample =
                advance(profile, Some(sample), start + Duration::from_secs(second), second * 1_000_000_000);
        }
        assert_eq!((sample.reading.utilisation, sample.reading.power_mw), (1.0, 700_000));
        assert!((sample.reading.temperature_c - 70.0).abs() < 0.1, "{:?}", sample.reading);
        let cooled = advance(profile, Some(sample), start + Duration::from_secs(68), sample.busy_ns);
        let expected = 32.2 + (70.0 - 32.2) * (-1.0f64).exp();
        assert!((cooled.reading.temperature_c - expected).abs() < 0.1, "{:?}", cooled.reading);
        let half = advance(profile, Some(idle), start + Duration::from_secs(1), 500_000_000);
        assert_eq!(half.reading.power_mw, 385_000);
    }
}
