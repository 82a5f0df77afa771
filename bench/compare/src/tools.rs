//! What the servers are made with: cargo, npm, apt, certificates; and where things are.

use std::{
    cell::OnceCell,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// Where servers are that no registry has, and what may be installed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Servers that are given by path")]
pub(crate) struct ToolOptions {
    /// PHP, for Swoole and Workerman
    #[arg(long, value_name = "PROGRAM", default_value = "php")]
    pub(crate) php: PathBuf,
    /// Swoole's extension, if PHP does not load it by itself
    #[arg(long, value_name = "PATH")]
    pub(crate) swoole_so: Option<PathBuf>,
    /// Workerman: its sources, or a project of Composer's that requires it
    #[arg(long, value_name = "PATH")]
    pub(crate) workerman: Option<PathBuf>,
    /// uWebSockets: the program built of peers/uws/server.cpp
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) uws: Option<PathBuf>,
    /// Gannet's examples: a directory in which they are built already, of another version maybe
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) examples: Option<PathBuf>,
    /// The load generator, built already
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) generator: Option<PathBuf>,
    /// Neither install Debian's nor npm's packages: what is missing is not measured
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// The tools of one run.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) options: ToolOptions,
    /// Gannet's repository.
    root: PathBuf,
    /// Where cargo puts what this program was built with: `target/release`.
    built: PathBuf,
    keys: OnceCell<Keys>,
}

/// A certificate authority and a certificate of it, in files of a directory that goes with them.
#[derive(Debug)]
pub(crate) struct Keys {
    home: Option<TempDir>,
}

impl Tools {
    pub(crate) fn new(options: ToolOptions) -> Result<Self> {
        let built = env::current_exe().context("where this program is")?;
        let built = built.parent().context("this program is in no directory")?;
        Ok(Tools {
            options,
            root: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
            built: built.to_owned(),
            keys: OnceCell::new(),
        })
    }

    /// A path in the repository.
    pub(crate) fn in_repository(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file of `peers`.
    pub(crate) fn peer(&self, path: &str) -> Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(path);
        let text = path.into_os_string().into_string();
        text.ok().context("the repository's path is not text")
    }

    /// Builds the load generator and examples of Gannet, but for what is given by path, as this program was
    /// built. It is a build of these packages: with the whole workspace, the servers would have what only other
    /// packages and their tests ask of shared libraries, which costs each process 0.2 MiB.
    pub(crate) fn build(&self, examples: &[&str]) -> Result<()> {
        let packages = ["-p", "gannet-examples", "-p", "gannet-bench"];
        let mut arguments = [&["build", "--quiet"][..], &packages].concat();
        let all = arguments.len();
        if self.options.generator.is_none() {
            arguments.extend(["--bin", "gannet-bench"]);
        }
        if self.options.examples.is_none() {
            arguments.extend(examples.iter().flat_map(|name| ["--example", name]));
        }
        // Without a name of what is to be built, that is everything.
        match arguments.len() == all {
            true => Ok(()),
            false => self.cargo(&arguments, &self.built),
        }
    }

    pub(crate) fn generator(&self) -> PathBuf {
        let built = || self.built.join("gannet-bench");
        self.options.generator.clone().unwrap_or_else(built)
    }

    pub(crate) fn example(&self, name: &str) -> Result<PathBuf> {
        let path = match &self.options.examples {
            Some(examples) => examples.join(name),
            None => self.built.join("examples").join(name),
        };
        path.canonicalize()
            .with_context(|| format!("{}", path.display()))
    }

    /// Builds a package of the workspace of peers.
    pub(crate) fn build_rust_peer(&self, package: &str) -> Result<()> {
        let manifest = self.peer("rust/Cargo.toml")?;
        let package = format!("compare-{package}");
        let target = self.peers_target();
        let target = target.to_str().context("a path that is not text")?;
        let arguments = ["build", "--quiet", "--locked", "--manifest-path", &manifest];
        let arguments = [&arguments[..], &["-p", &package, "--target-dir", target]].concat();
        self.cargo(&arguments, &self.built)
    }

    pub(crate) fn rust_peer(&self, package: &str) -> PathBuf {
        let profile = self.built.file_name().unwrap_or_default();
        self.peers_target()
            .join(profile)
            .join(format!("compare-{package}"))
    }

    fn peers_target(&self) -> PathBuf {
        self.built.with_file_name("compare")
    }

    fn cargo(&self, arguments: &[&str], built: &Path) -> Result<()> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(&self.root);
        if built.ends_with("release") {
            command.arg("--release");
        }
        run(command.stdin(Stdio::null()))
    }

    /// Installs Debian's packages if there is no such program.
    pub(crate) fn install(&self, program: &Path, packages: &[&str]) -> Result<()> {
        if is_there(program) {
            return Ok(());
        }
        let packages_named = packages.join(" ");
        let what = program.display();
        ensure!(
            !self.options.no_install,
            "there is no {what}: apt-get install {packages_named}"
        );
        eprintln!("installing {packages_named}");
        let mut command = match rustix::process::geteuid().is_root() {
            true => Command::new("apt-get"),
            false => {
                let mut command = Command::new("sudo");
                command.args(["-n", "apt-get"]);
                command
            }
        };
        command
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        run(&mut command).with_context(|| {
            format!("there is no {what}, and it could not be installed: apt-get install {packages_named}")
        })
    }

    /// Installs what a peer's package.json says, and returns the version of `library`.
    pub(crate) fn npm(&self, peer: &str, library: &str) -> Result<String> {
        let home = PathBuf::from(self.peer(peer)?);
        let installed = home.join("node_modules").join(library).join("package.json");
        if !installed.exists() {
            ensure!(
                !self.options.no_install,
                "{library} is not installed: npm ci in bench/compare/peers/{peer}"
            );
            let mut command = Command::new("npm");
            command
                .args(["ci", "--silent", "--no-audit", "--no-fund"])
                .current_dir(&home)
                .stdin(Stdio::null());
            run(&mut command)?;
        }
        let about =
            fs::read_to_string(&installed).with_context(|| format!("{}", installed.display()))?;
        let about: serde_json::Value = serde_json::from_str(&about)?;
        let version = about["version"].as_str();
        Ok(version.context("a package without a version")?.to_owned())
    }

    /// What is checked out, and how it was built.
    pub(crate) fn version(&self) -> Result<String> {
        if let Some(examples) = &self.options.examples {
            return Ok(format!("as built in {}", examples.display()));
        }
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args(arguments)
                .current_dir(&self.root)
                .stdin(Stdio::null())
                .output();
            let output = output.ok().filter(|output| output.status.success())?;
            String::from_utf8(output.stdout).ok()
        };
        let version = env!("CARGO_PKG_VERSION");
        let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
            return Ok(version.to_owned());
        };
        let changed = git(&["status", "--porcelain", "--", "crates", "examples"]);
        let changed = match changed.is_some_and(|changed| !changed.is_empty()) {
            true => " with changes",
            false => "",
        };
        Ok(format!("{version} ({}{changed})", commit.trim()))
    }

    /// The keys of all servers that speak TLS, made when they are asked for first.
    pub(crate) fn keys(&self) -> &Keys {
        self.keys.get_or_init(|| Keys {
            home: match Keys::make() {
                Ok(home) => Some(home),
                Err(error) => {
                    eprintln!("no certificates: {error:#}");
                    None
                }
            },
        })
    }
}

impl Keys {
    /// The chain that the servers show.
    pub(crate) fn certificate(&self) -> Result<String> {
        self.file(CERTIFICATE)
    }

    /// Its key.
    pub(crate) fn key(&self) -> Result<String> {
        self.file(KEY)
    }

    /// What clients trust.
    pub(crate) fn authority(&self) -> Result<String> {
        self.file(AUTHORITY)
    }

    fn file(&self, name: &str) -> Result<String> {
        let home = self.home.as_ref().context("there are no certificates")?;
        let path = home.path().join(name).into_os_string();
        path.into_string().ok().context("a path that is not text")
    }

    /// ECDSA on P-256, as most certificates are today.
    fn make() -> Result<TempDir> {
        let home = tempfile::Builder::new()
            .prefix("gannet-compare-")
            .tempdir()?;
        let key = rcgen::KeyPair::generate()?;
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(rcgen::DnType::CommonName, "gannet compare");
        let certificate = authority.self_signed(&key)?;
        fs::write(home.path().join(AUTHORITY), certificate.pem())?;
        let issuer = rcgen::Issuer::new(authority, key);
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        fs::write(home.path().join(CERTIFICATE), certificate.pem())?;
        fs::write(home.path().join(KEY), key.serialize_pem())?;
        Ok(home)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    if !status.success() {
        bail!("{command:?} ends with {status}");
    }
    Ok(())
}

/// Whether a program is where it is said, or in the path.
fn is_there(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";
