//! The library as nvml-wrapper sees it, beside a process that uses the device.

use lightos_softgpu_engine::state::State;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor, TemperatureThreshold};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

const FIXTURE: &str = include_str!("../../../tests/fixtures/exports/libnvidia-ml-580.159.txt");

fn library() -> std::path::PathBuf {
    // Cargo builds the shared object beside the test's own executable.
    std::env::current_exe().unwrap().with_file_name("libnvidia_ml.so")
}

fn open() -> Nvml {
    Nvml::builder().lib_path(library().as_os_str()).init().unwrap()
}

#[test]
fn the_device_is_enumerated_and_read() {
    let nvml = open();
    assert_eq!(nvml.device_count().unwrap(), 1);
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.159.04");
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.name().unwrap(), "NVIDIA H100 80GB HBM3");
    let uuid = device.uuid().unwrap();
    assert!(uuid.starts_with("GPU-") && uuid.len() == 40, "{uuid}");
    assert_eq!(nvml.device_by_uuid(uuid).unwrap().index().unwrap(), 0);
    let pci = device.pci_info().unwrap();
    assert_eq!((pci.bus_id.as_str(), pci.pci_device_id), ("00000000:1B:00.0", 0x2330_10de));
    assert!(nvml.device_by_index(7).is_err());
    assert_eq!(device.power_management_limit_default().unwrap(), 700_000);
    let limits = device.power_management_limit_constraints().unwrap();
    assert_eq!((limits.min_limit, limits.max_limit), (200_000, 700_000));
    assert_eq!(device.max_clock_info(Clock::SM).unwrap(), 1980);
    assert_eq!(device.temperature_threshold(TemperatureThreshold::Slowdown).unwrap(), 89);
    assert!((20..90).contains(&device.temperature(TemperatureSensor::Gpu).unwrap()));
    assert!(matches!(device.encoder_utilization(), Err(NvmlError::NotSupported)));
}

#[test]
fn busy_time_and_memory_of_a_process_show() {
    let nvml = open();
    let device = nvml.device_by_index(0).unwrap();
    let state = State::get().unwrap();
    let (memory, energy) = (device.memory_info().unwrap(), device.total_energy_consumption().unwrap());
    assert!(state.reserve(0, 3 << 20, memory.total));
    let ours =
        || device.running_compute_processes().unwrap().into_iter().find(|p| p.pid == std::process::id());
    assert!(matches!(ours().unwrap().used_gpu_memory, UsedGpuMemory::Used(bytes) if bytes == 3 << 20));
    assert!(device.memory_info().unwrap().used >= 3 << 20);
    let _ = device.utilization_rates().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    state.add_busy(0, 10_000_000_000);
    assert_eq!(device.utilization_rates().unwrap().gpu, 100);
    assert_eq!(device.power_usage().unwrap(), 700_000);
    assert_eq!(device.clock_info(Clock::SM).unwrap(), 1980);
    assert!(device.current_throttle_reasons().unwrap().is_empty());
    assert!(device.total_energy_consumption().unwrap() > energy + 6_000_000);
    state.release(0, 3 << 20);
    assert!(matches!(ours().unwrap().used_gpu_memory, UsedGpuMemory::Used(0)));
}

#[test]
fn the_shared_object_exports_what_a_real_library_exports() {
    // SAFETY: loading the library runs no code beyond its own initialisers, which do nothing.
    let library = unsafe { libloading::Library::new(library()) }.unwrap();
    // SAFETY: the symbol is only looked up.
    let missing = |name: &&str| unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err();
    let absent: Vec<&str> = FIXTURE.lines().filter(|line| !line.is_empty()).filter(missing).collect();
    assert!(absent.is_empty(), "not exported: {absent:?}");
}
