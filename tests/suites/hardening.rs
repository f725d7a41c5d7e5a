//! What both processes ask of the kernel at their start, as the kernel tells it.

use std::fs;

use crate::scene::Scene;

#[tokio::test]
async fn parent_and_enclave_leave_no_core_dumps_and_gain_no_privileges() {
    let it = Scene::start().await;
    let [_, enclave, parent] = it.stack.process_ids();
    for (name, process) in [("enclave", enclave), ("parent", parent)] {
        let process = process.expect("a process");
        let told = |file| fs::read_to_string(format!("/proc/{process}/{file}")).expect("a running process");
        let (status, limits) = (told("status"), told("limits"));
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
        assert_eq!(field("NoNewPrivs:"), "1", "{name}");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{name}");
        // CAP_IPC_LOCK, capabilities(7).
        if u64::from_str_radix(field("CapEff:"), 16).expect("hex") >> 14 & 1 == 1 {
            let locked = field("VmLck:").trim_end_matches(" kB").trim();
            assert_ne!(locked.parse::<u64>().expect("a number"), 0, "{name}: what may lock its memory does");
        }
    }
}
