//! What a process that holds secrets asks of the kernel before it holds any.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_no_new_privs};

/// What was granted beside what must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardened {
    /// Nothing of this process's memory is ever written to a swap device. Only who has CAP_IPC_LOCK may ask for that, or
    /// whom `RLIMIT_MEMLOCK` does not limit.
    pub memory_locked: bool,
}

/// From here on this process leaves no core dump, other processes of its user cannot read its memory (ptrace(2),
/// `/proc/PID/mem`), and no program that it starts has more privileges than it has.
///
/// # Errors
/// The machine's: every process may ask for this.
pub fn harden() -> io::Result<Hardened> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_no_new_privs(true)?;
    // For the programs that it starts: its own dumps are ruled out already. Where a sandbox forbids to change limits,
    // it sets them.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Where there is a limit, memory would be locked until it is reached, and then there would be no more of it.
    let may_lock = |sets: CapabilitySets| sets.effective.contains(CapabilitySet::IPC_LOCK);
    let unlimited = capabilities(None).is_ok_and(may_lock) || getrlimit(Resource::Memlock).current.is_none();
    // Pages are locked as they come into use: not the address space that is only reserved.
    let memory_locked =
        unlimited && mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).is_ok();
    Ok(Hardened { memory_locked })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;
    use rustix::thread::no_new_privs;

    #[test]
    fn the_kernel_says_so_too() {
        harden().expect("granted");
        assert_eq!(dumpable_behavior().expect("asked"), DumpableBehavior::NotDumpable);
        assert!(no_new_privs().expect("asked"));
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
    }
}
