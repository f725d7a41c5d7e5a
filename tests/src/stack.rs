//! The whole appliance on one machine: mock-kms, dev-enclave and parent as processes of their own, set
//! up as an operator would: KMS keys whose policies admit exactly this image with this configuration.
//! The suites, `make dev` and `make demo` all start it here.
//!
//! Everything lives in one folder, and what the folder has is kept: keys survive a restart.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use strongroom_protocol::Measurement;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::api::Api;
use crate::endpoint::{Demand, Pki};
use crate::machine::{Image, Machine, Measurements};
use crate::mock_kms::{self, Admitted, Control, ControlError, Endpoint, dedicated_key_policy};
use crate::mock_nsm::image_pcrs;
use crate::pki::{NITRO_ROOT_FILE, NitroAuthority};
use crate::process::{Process, START_TIMEOUT};
pub use crate::process::{binary, test_directory};
use crate::vmm::{self, Vmm};

/// The Region of the stack's KMS.
pub const REGION: &str = "eu-central-1";
/// The name in the certificate of the stack's KMS.
pub const KMS_HOST: &str = "kms.eu-central-1.amazonaws.com";
/// The parent's role, which the key policy admits.
pub const PARENT_ARN: &str = "arn:aws:iam::111122223333:role/strongroom-parent";
/// The key administrator's role.
pub const ADMINISTRATOR_ARN: &str = "arn:aws:iam::111122223333:role/strongroom-administrator";
/// The parent's AWS credentials, known to mock-kms only.
pub const ACCESS_KEY_ID: &str = "AKIASTRONGROOMDEV001";
/// Their secret half.
pub const SECRET_ACCESS_KEY: &str = "dev-only/0qPc7Wn3sYb5Xk1mZ8vR2tLu6Hj4Gf9D";
/// The image label of the dev enclave, from which its PCR0-2 follow.
pub const IMAGE: &str = "strongroom-dev";

/// The parent's configuration in a stack's folder.
pub const CONFIG_FILE: &str = "strongroom.toml";

/// What stack to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything lives.
    pub directory: PathBuf,
    /// Where the parent listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What the enclave runs on.
    pub enclave: EnclaveKind,
    /// Enclave and parent for another processor; by default they are those beside this program.
    pub foreign: Option<Foreign>,
    /// The image that the dev enclave says it is.
    pub image: String,
    /// Whether the enclave runs in debug mode (PCR0-2 zero).
    pub debug_mode: bool,
    /// The KMS keys that the configuration lists, in this order, and that admit the enclave.
    pub kms_keys: Vec<KmsKeyKind>,
    /// Fields of the enclave's configuration beside, or instead of, the usual ones.
    pub configuration: Map<String, Value>,
    /// The image that the KMS keys' policies admit; by default the enclave's own.
    pub admitted_image: Option<String>,
    /// The PCR16 that the KMS keys' policies admit; by default the configuration's own.
    pub admitted_pcr16: Option<[u8; 48]>,
    /// `[store]` of strongroom.toml; by default the folder `keys`.
    pub store: String,
    /// What the endpoint asks of clients over TLS; by default it speaks plain HTTP. The files are those of
    /// [`Pki`], in the folder `tls`.
    pub tls: Option<Demand>,
    /// Text that strongroom.toml has besides, for example `[[identities]]`.
    pub parent_toml: String,
    /// Environment of the parent beside its AWS credentials. Wins over those.
    pub parent_environment: Vec<(String, String)>,
    /// The enclave's socket.
    pub enclave_address: String,
    /// The socket of the enclave's way to KMS.
    pub kms_proxy_address: String,
    /// Whether a VMM stands between parent and enclave, which have sockets of its own then; see [`Plan::in_a_vm`].
    pub vmm: bool,
    /// Arguments of the enclave beside the usual ones.
    pub enclave_arguments: Vec<String>,
    /// How much everybody logs.
    pub log_level: String,
}

/// What the enclave runs on.
#[derive(Debug, Clone)]
pub enum EnclaveKind {
    /// A process with a mock NSM.
    Process,
    /// A virtual machine of the stack's own. Its documents are unsigned, which mock-kms is told to believe.
    Machine(Image),
    /// A machine that somebody else boots from an image that measures this. Likewise.
    Elsewhere(Measurements),
}

/// Binaries that only an emulator runs here, such as qemu-aarch64-static.
#[derive(Debug, Clone, clap::Args)]
#[group(requires_all = ["emulator", "binaries"], multiple = true)]
pub struct Foreign {
    /// What runs the enclave and the parent of another processor
    #[arg(long, value_name = "PROGRAM", required = false)]
    pub emulator: PathBuf,
    /// Where they are
    #[arg(long, value_name = "DIRECTORY", required = false)]
    pub binaries: PathBuf,
}

/// What kind of KMS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsKeyKind {
    /// KMS's usual one.
    SingleRegion,
    /// One that can have replicas in other Regions; its id begins with `mrk-`.
    MultiRegion,
}

impl Plan {
    /// The usual stack, in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            enclave: EnclaveKind::Process,
            foreign: None,
            image: IMAGE.to_owned(),
            debug_mode: false,
            kms_keys: vec![KmsKeyKind::SingleRegion],
            configuration: Map::new(),
            admitted_image: None,
            admitted_pcr16: None,
            store: "type = \"directory\"\npath = \"keys\"\n".to_owned(),
            tls: None,
            parent_toml: String::new(),
            parent_environment: Vec::new(),
            enclave_address: "unix:enclave.sock".to_owned(),
            kms_proxy_address: "unix:kms-proxy.sock".to_owned(),
            vmm: false,
            enclave_arguments: Vec::new(),
            log_level: "info".to_owned(),
        }
    }

    /// Puts the enclave into a guest, whose vsock the parent reaches as [`Vmm`] shows it.
    pub fn in_a_vm(&mut self) {
        self.vmm = true;
        self.enclave_address = format!("unix-hybrid:{}:{}", vmm::SOCKET, vmm::ENCLAVE_PORT);
        self.kms_proxy_address = format!("unix-hybrid:{}:{}", vmm::SOCKET, vmm::KMS_PROXY_PORT);
    }

    /// Starts the stack and waits until `/readyz` says yes.
    ///
    /// # Errors
    /// A process does not start or is not ready in time; the text has the end of its log.
    pub async fn start(self) -> io::Result<Stack> {
        let stack = self.start_unready().await?;
        stack.wait_ready().await?;
        Ok(stack)
    }

    /// Starts the stack without waiting for readiness, for stacks that are meant not to get ready.
    ///
    /// # Errors
    /// A process does not start.
    pub async fn start_unready(mut self) -> io::Result<Stack> {
        fs::create_dir_all(self.directory.join("keys"))?;
        self.directory = self.directory.canonicalize()?;
        let http = self.client()?;
        let (kms, endpoint) = self.start_kms(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        // Not before: a port that is only found free could become mock-kms's.
        self.listen = free_address(self.listen)?;
        let control = Control::new(endpoint.control);
        let kms_keys = self.configure(&control).await?;
        fs::write(self.directory.join(CONFIG_FILE), self.strongroom_toml(endpoint.kms))?;
        let vmm = if self.vmm { Some(Vmm::start(&self.directory)?) } else { None };
        let enclave = self.start_enclave("enclave").await?;
        let parent = self.start_parent("parent", CONFIG_FILE)?;
        Ok(Stack {
            url: self.url(self.listen),
            http,
            plan: self,
            vmm,
            control,
            endpoint,
            kms_key: kms_keys.first().cloned().unwrap_or_default(),
            kms_keys,
            kms,
            enclave,
            parent,
        })
    }

    /// Makes the KMS keys of a new folder, writes the configuration that names them and admits it to each.
    async fn configure(&self, control: &Control) -> io::Result<Vec<String>> {
        let kms_keys = self.kms_keys(control).await.map_err(io::Error::other)?;
        let mut configuration = json!({
            "version": 1,
            "region": REGION,
            "kms_host": KMS_HOST,
            "kms_keys": kms_keys,
            "tls_roots": fs::read_to_string(self.directory.join("kms").join(mock_kms::TLS_ROOT_FILE))?,
        });
        if let Some(fields) = configuration.as_object_mut() {
            fields.extend(self.configuration.clone());
        }
        let bytes = serde_json::to_vec_pretty(&configuration)?;
        fs::write(self.directory.join("enclave.json"), &bytes)?;

        let pcrs = match &self.enclave {
            EnclaveKind::Process => image_pcrs(&self.image),
            EnclaveKind::Machine(image) => image.measurements.0,
            EnclaveKind::Elsewhere(measurements) => measurements.0,
        };
        let pcr16 = Measurement::of(&bytes).pcr16;
        let registers = [("PCR0", pcrs[0]), ("PCR1", pcrs[1]), ("PCR2", pcrs[2]), ("PCR16", pcr16)];
        let registers: Map<String, Value> =
            registers.iter().map(|(name, value)| ((*name).to_owned(), hex::encode(value).into())).collect();
        fs::write(self.directory.join("pcrs.json"), serde_json::to_vec_pretty(&registers)?)?;

        let admitted_pcr0 = self.admitted_image.as_deref().map_or(pcrs[0], |image| image_pcrs(image)[0]);
        let admitted = Admitted::new(admitted_pcr0, self.admitted_pcr16.unwrap_or(pcr16)).map_err(io::Error::other)?;
        let policy = dedicated_key_policy(ADMINISTRATOR_ARN, PARENT_ARN, &[admitted]);
        for kms_key in &kms_keys {
            control.put_policy(kms_key, &policy).await.map_err(io::Error::other)?;
        }
        Ok(kms_keys)
    }

    /// The plan's KMS keys: the oldest that there are, and new ones for what is missing.
    async fn kms_keys(&self, control: &Control) -> Result<Vec<String>, ControlError> {
        let mut found = control.keys().await?.into_iter().map(|key| key.arn);
        let mut kms_keys = Vec::new();
        for kind in &self.kms_keys {
            let nothing = || Some(dedicated_key_policy(ADMINISTRATOR_ARN, PARENT_ARN, &[]));
            kms_keys.push(match (found.next(), kind) {
                (Some(arn), _) => arn,
                (None, KmsKeyKind::SingleRegion) => control.create_key(nothing()).await?,
                (None, KmsKeyKind::MultiRegion) => control.create_multi_region_key(nothing()).await?,
            });
        }
        Ok(kms_keys)
    }

    /// What an operator would write. Paths are relative to the folder, in which the parent runs, so that
    /// socket paths stay short.
    fn strongroom_toml(&self, kms: SocketAddr) -> String {
        let proxy = &self.kms_proxy_address;
        format!("{}[kms_proxy]\nlisten = \"{proxy}\"\nremote = \"{kms}\"\n", self.toml_without_proxy(self.listen))
    }

    fn toml_without_proxy(&self, listen: SocketAddr) -> String {
        let (enclave, store, rest) = (&self.enclave_address, &self.store, &self.parent_toml);
        let tls = self.tls.map(Pki::toml).unwrap_or_default();
        format!(
            "listen = \"{listen}\"\n\n\
             [enclave]\naddress = \"{enclave}\"\nconfiguration = \"enclave.json\"\n\n\
             [store]\n{store}\n{tls}\n{rest}\n"
        )
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.tls.is_some() { "https" } else { "http" })
    }

    /// A client that gets through to the parent; over TLS, with a certificate that no identity has.
    fn client(&self) -> io::Result<reqwest::Client> {
        match self.tls {
            // It must not keep a place of the parent's.
            None => reqwest::Client::builder().pool_max_idle_per_host(0).build().map_err(io::Error::other),
            Some(_) => Pki::open(&self.directory)?.stranger(),
        }
    }

    async fn start_kms(&self, listen: SocketAddr) -> io::Result<(Process, Endpoint)> {
        let mut command = self.command("mock-kms");
        command
            .args(["--state", "kms", "--host", KMS_HOST, "--region", REGION, "--principal-arn", PARENT_ARN])
            .args(["--attestation-root", &format!("nsm/{NITRO_ROOT_FILE}")])
            .args(["--access-key-id", ACCESS_KEY_ID, "--secret-access-key", SECRET_ACCESS_KEY])
            .args(["--listen", &listen.to_string(), "--log-level", &self.log_level]);
        if !matches!(self.enclave, EnclaveKind::Process) {
            // A root that signs nothing here, for what is signed must still be.
            let nsm = self.directory.join("nsm");
            NitroAuthority::open(&nsm)?;
            fs::copy(nsm.join(NITRO_ROOT_FILE), self.directory.join(NITRO_ROOT_FILE))?;
            command.arg("--dangerously-believe-unsigned-attestation-documents-of-qemu");
        }
        let state = self.directory.join("kms");
        let _ = fs::remove_file(state.join(mock_kms::ENDPOINT_FILE));
        let mut process = Process::start("mock-kms", &mut command, &self.directory)?;
        let endpoint = process.wait_for(|| Endpoint::read(&state).ok()).await?;
        Ok((process, endpoint))
    }

    async fn start_enclave(&self, name: &'static str) -> io::Result<Enclave> {
        match &self.enclave {
            EnclaveKind::Process => self.start_enclave_process(name).await.map(Enclave::Process),
            EnclaveKind::Machine(image) => {
                Machine::boot(image, &self.directory).await.map(Box::new).map(Enclave::Machine)
            }
            EnclaveKind::Elsewhere(_) => Ok(Enclave::Elsewhere),
        }
    }

    async fn start_enclave_process(&self, name: &'static str) -> io::Result<Process> {
        let (listen, kms_proxy) = if self.vmm {
            let (listen, kms_proxy) = (vmm::guest_port(vmm::ENCLAVE_PORT), vmm::host_port(vmm::KMS_PROXY_PORT));
            (format!("unix:{listen}"), format!("unix:{kms_proxy}"))
        } else {
            (self.enclave_address.clone(), self.kms_proxy_address.clone())
        };
        let mut command = self.command("dev-enclave");
        command
            .args(["--listen", &listen, "--kms-proxy", &kms_proxy])
            .args(["--nsm-dir", "nsm", "--image", &self.image, "--log-level", &self.log_level])
            .args(&self.enclave_arguments);
        if self.debug_mode {
            command.arg("--debug-mode");
        }
        let mut process = Process::start(name, &mut command, &self.directory)?;
        let root = self.directory.join("nsm").join(NITRO_ROOT_FILE);
        let root = process.wait_for(|| fs::read(&root).ok()).await?;
        fs::write(self.directory.join(NITRO_ROOT_FILE), root)?;
        Ok(process)
    }

    fn start_parent(&self, name: &'static str, config: &str) -> io::Result<Process> {
        let mut command = self.command("strongroom");
        command
            .args(["serve", "--config", config])
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .env("AWS_REGION", REGION)
            .env("RUST_LOG", &self.log_level)
            .envs(self.parent_environment.iter().map(|(name, value)| (name, value)));
        Process::start(name, &mut command, &self.directory)
    }

    /// A command without the AWS settings of whoever runs this.
    fn command(&self, name: &str) -> Command {
        let mut command = match &self.foreign {
            // mock-kms is of this machine: it stands for somebody else's.
            Some(Foreign { emulator, binaries }) if name != "mock-kms" => {
                let mut command = Command::new(emulator);
                command.arg(binaries.join(name));
                command
            }
            _ => Command::new(binary(name)),
        };
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("AWS_") {
                command.env_remove(variable);
            }
        }
        command
            .current_dir(&self.directory)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command
    }
}

/// A running stack. Dropped, it takes its processes along.
#[derive(Debug)]
pub struct Stack {
    /// What was started.
    pub plan: Plan,
    /// The parent's URL.
    pub url: String,
    http: reqwest::Client,
    /// The VMM, if the plan has one.
    pub vmm: Option<Vmm>,
    /// The controls of mock-kms.
    pub control: Control,
    /// The ARN of the first KMS key.
    pub kms_key: String,
    /// The ARNs of all KMS keys of the plan.
    pub kms_keys: Vec<String>,
    endpoint: Endpoint,
    kms: Process,
    enclave: Enclave,
    parent: Process,
}

impl Stack {
    /// The folder.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.plan.directory
    }

    /// A caller that gets through to the parent, without a token. Its connections are its own.
    ///
    /// # Errors
    /// The TLS files are not there.
    pub fn caller(&self) -> io::Result<Api> {
        Ok(Api::over(&self.url, self.plan.client()?))
    }

    /// The address of KMS itself.
    #[must_use]
    pub const fn kms_address(&self) -> SocketAddr {
        self.endpoint.kms
    }

    /// Waits until the parent says that it is ready.
    ///
    /// # Errors
    /// It is not, in a minute, or a process ended meanwhile.
    pub async fn wait_ready(&self) -> io::Result<()> {
        wait_ready(&self.http, &self.url, &self.parent).await
    }

    /// The last lines that parent and enclave logged, for whom a test fails.
    #[must_use]
    pub fn log_ends(&self) -> String {
        let enclave = match &self.enclave {
            Enclave::Process(process) => process.log_end(),
            Enclave::Machine(machine) => machine.qemu.log_end(),
            Enclave::Elsewhere => String::new(),
        };
        format!("parent:\n{}\nenclave:\n{enclave}", self.parent.log_end())
    }

    /// Writes the configuration anew from the plan and admits it, and nothing else, to the KMS keys. An
    /// enclave takes it only at its next boot, a parent at its next start.
    ///
    /// # Errors
    /// The files cannot be written, or mock-kms is away.
    pub async fn reconfigure(&mut self) -> io::Result<()> {
        self.kms_keys = self.plan.configure(&self.control).await?;
        Ok(())
    }

    /// Kills the enclave (SIGKILL) and boots another; its image is the plan's.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_enclave(&mut self) -> io::Result<()> {
        self.enclave.kill().await?;
        self.enclave = self.plan.start_enclave("enclave").await?;
        Ok(())
    }

    /// Kills the parent (SIGKILL) and starts another.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_parent(&mut self) -> io::Result<()> {
        self.parent.kill().await?;
        self.parent = self.plan.start_parent("parent", CONFIG_FILE)?;
        Ok(())
    }

    /// Starts a second parent on the same enclave and the same store, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start or is not ready in time.
    pub async fn start_another_parent(&self) -> io::Result<AnotherParent> {
        let listen = free_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        fs::write(self.directory().join("another.toml"), self.plan.toml_without_proxy(listen))?;
        let process = self.plan.start_parent("another-parent", "another.toml")?;
        let url = self.plan.url(listen);
        wait_ready(&self.http, &url, &process).await?;
        Ok(AnotherParent { url, _parent: process, _enclave: None })
    }

    /// Starts another host on the same store and the same KMS: a parent with an enclave of its own, which
    /// has the same image and configuration. Waits until it is ready.
    ///
    /// # Errors
    /// It does not start or is not ready in time.
    pub async fn start_another_host(&self) -> io::Result<AnotherParent> {
        let plan = Plan {
            listen: free_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?,
            enclave_address: "unix:another-enclave.sock".to_owned(),
            kms_proxy_address: "unix:another-kms-proxy.sock".to_owned(),
            vmm: false,
            ..self.plan.clone()
        };
        fs::write(self.directory().join("another.toml"), plan.strongroom_toml(self.endpoint.kms))?;
        let enclave = plan.start_enclave("another-enclave").await?;
        let parent = plan.start_parent("another-parent", "another.toml")?;
        let url = plan.url(plan.listen);
        wait_ready(&self.http, &url, &parent).await?;
        Ok(AnotherParent { url, _parent: parent, _enclave: Some(enclave) })
    }

    /// Ends the parent by SIGTERM; how it ended.
    ///
    /// # Errors
    /// It cannot be waited for, or did not end by itself.
    pub async fn stop_parent(&mut self) -> io::Result<ExitStatus> {
        self.parent.terminate().await?.ok_or_else(|| io::Error::other("the parent did not end"))
    }

    /// Kills mock-kms (SIGKILL) and starts another at the same address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_kms(&mut self) -> io::Result<()> {
        self.kms.kill().await?;
        (self.kms, self.endpoint) = self.plan.start_kms(self.endpoint.kms).await?;
        self.control = Control::new(self.endpoint.control);
        Ok(())
    }

    /// The process ids of mock-kms, enclave and parent.
    #[must_use]
    pub fn process_ids(&self) -> [Option<u32>; 3] {
        [self.kms.child.id(), self.enclave.process_id(), self.parent.child.id()]
    }

    /// From power-on to the heartbeat, if the enclave is a virtual machine of the stack's own.
    #[must_use]
    pub const fn boot_time(&self) -> Option<Duration> {
        match &self.enclave {
            Enclave::Machine(machine) => Some(machine.boot_time),
            Enclave::Process(_) | Enclave::Elsewhere => None,
        }
    }

    /// Ends all three by SIGTERM, the parent first so that it can drain.
    ///
    /// # Errors
    /// One of them cannot be waited for.
    pub async fn stop(mut self) -> io::Result<()> {
        self.parent.terminate().await?;
        self.enclave.terminate().await?;
        self.kms.terminate().await.map(|_| ())
    }

    /// Starts again what [`Stack::ended`] named.
    ///
    /// # Errors
    /// It does not start.
    pub async fn revive(&mut self, name: &str) -> io::Result<()> {
        match name {
            "mock-kms" => self.restart_kms().await,
            "enclave" => self.restart_enclave().await,
            _ => self.restart_parent().await,
        }
    }

    /// Returns when one of the three has ended by itself, with its name.
    pub async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = self.kms.child.wait() => "mock-kms",
            () = self.enclave.ended() => "enclave",
            _ = self.parent.child.wait() => "parent",
        }
    }
}

/// A second parent. Dropped, it is killed.
#[derive(Debug)]
pub struct AnotherParent {
    /// Its URL.
    pub url: String,
    _parent: Process,
    _enclave: Option<Enclave>,
}

/// The enclave of a stack, as it runs.
#[derive(Debug)]
enum Enclave {
    Process(Process),
    Machine(Box<Machine>),
    Elsewhere,
}

impl Enclave {
    /// The process that can be killed, if it is ours.
    fn process_id(&self) -> Option<u32> {
        match self {
            Self::Process(process) => process.child.id(),
            Self::Machine(machine) => machine.qemu.child.id(),
            Self::Elsewhere => None,
        }
    }

    async fn kill(&mut self) -> io::Result<()> {
        match self {
            Self::Process(process) => process.kill().await,
            Self::Machine(machine) => machine.kill().await,
            Self::Elsewhere => Ok(()),
        }
    }

    async fn terminate(&mut self) -> io::Result<()> {
        match self {
            Self::Process(process) => process.terminate().await.map(|_| ()),
            Self::Machine(machine) => machine.kill().await,
            Self::Elsewhere => Ok(()),
        }
    }

    async fn ended(&mut self) {
        let child = match self {
            Self::Process(process) => &mut process.child,
            Self::Machine(machine) => &mut machine.qemu.child,
            Self::Elsewhere => return std::future::pending().await,
        };
        let _ = child.wait().await;
    }
}

async fn wait_ready(http: &reqwest::Client, url: &str, parent: &Process) -> io::Result<()> {
    let readyz = format!("{url}/readyz");
    let started = Instant::now();
    loop {
        let answer = http.get(&readyz).send().await;
        if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if started.elapsed() > START_TIMEOUT {
            let reasons = match answer {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            return Err(io::Error::other(format!("not ready: {reasons}\n{}", parent.log_end())));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// `listen` itself, or with a free port if it names none: one below those that the kernel gives to outgoing connections,
/// and in each process another one each time, so that it is still free when the parent takes it.
fn free_address(listen: SocketAddr) -> io::Result<SocketAddr> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let bind = |address: SocketAddr| TcpListener::bind(address).and_then(|bound| bound.local_addr());
    if listen.port() != 0 {
        return bind(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}")));
    }
    let start = std::process::id().wrapping_mul(997);
    for _ in 0..COUNT {
        let turn = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + turn).map_err(io::Error::other)?;
        if let Ok(address) = bind(SocketAddr::new(listen.ip(), port)) {
            return Ok(address);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
