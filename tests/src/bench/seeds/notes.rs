//! How the figures on seeds are to be read.

pub(super) const NOTES: &str = "\
One stack on the directory store, and a seed of each algorithm, made through REST and held from its first use on. The
public keys of 100,000 paths are asked for, each once: `m/44'/60'/0'/0/n`, and `m/44'/501'/n'/0'`, where all is hardened;
and signatures of a short message at 2,000 of the paths. All goes over connections that are kept, 32 requests at a time,
in ten rounds in which each rate has its turn; then 1,000 further public keys one at a time (a median). What the caller
itself takes is in every figure. The run ends with an error unless mock-kms saw exactly one call for each seed (the
Decrypt, which is in the time of all 100,000), the 100,000 addresses differ, and all 100,000 public keys are those that
the libraries derive.

* **Libraries, one thread**: the same keys in one process, by the cheapest way there is from a parent that is made ahead.
  `m/44'/60'/0'/0/n` is one HMAC-SHA512 (AWS-LC), one k·G and one addition of points (libsecp256k1), without the private
  key: the enclave derives that, as it does for signing. `n'/0'` is two HMACs and one k·G (AWS-LC); the enclave keeps one
  parent, which is another for each `n'`, so it makes four HMACs. This is one core's work; the appliance and its caller
  share all cores.
* **`GET /healthz`**, 20,000 times: what caller and parent take for a request without store and enclave.
* **Memory**: of the processes (RSS), before a seed's first use and after all of it. The second seed comes after the first
  into the same processes and adds next to nothing: neither of them keeps an address.
";
