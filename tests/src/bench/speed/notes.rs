//! How it is measured.

pub(super) const NOTES: &str = "\
The bare loop is the library's signature and the appliance's own check of it, one after another, with no other code of
the appliance around it, on one thread and on two; it wipes the stack as the appliance does. Everything else goes
through running processes over sockets, the check is always on, keys are held unless said. The caller is hyper's client
on a thread of its own, and takes its part of the same two cores. Each figure is the best of seven rounds that alternate
with the bare loop, which is treated alike; a p99 is the median of the rounds. A row may exceed the bare loop, because
requests that arrive together share the costs of signatures and checks (ARCHITECTURE.md, *The check before release*).

BIP-340 signatures share nothing: their batch shows what batches save beside that. CPU times are the kernel's accounts
of the processes.
";
