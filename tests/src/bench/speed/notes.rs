//! How it is measured.

pub(super) const NOTES: &str = "\
The bare loop is the library's signature and the appliance's own check of it, one after another, with no other code of
the appliance around it, on one thread and on two; it wipes the stack as the appliance does. Everything else goes
through running processes over sockets, the check is always on, keys are held unless said. The caller is hyper's client
on a thread of its own, and takes its part of the same two cores. Each figure is the best of seven rounds that alternate
with the bare loop, which is treated alike; a p99 is the median of the rounds. A row may exceed the bare loop, because
requests that arrive together share the costs of signatures and checks (ARCHITECTURE.md, *The check before release*).

BIP-340 signatures share nothing but the wiping of the stack: their batch shows what batches save beside that. CPU times
are the kernel's accounts of the processes. With one request in flight most of what is not signing is waking: six times a
sleeping thread, which on virtual cores that have gone idle costs some 20 µs each, and which vsock to an enclave's own
cores has fewer of. Of an unlock's own cost RSA-OAEP is a quarter, the AWS SDK a tenth, TLS, proxy and waking most of
the rest. At twice the best rate of single requests, callers and refusals take more of the two cores than
signing gets; batches show what the appliance does where signing is what there is too much of.
";
