//! Which cluster everything uses.

use std::ffi::OsString;
use std::path::PathBuf;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Which cluster, by the rules of kubectl.
#[derive(Clone, Debug)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

impl Access {
    pub async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None => kube::Config::from_kubeconfig(&options).await?,
        };
        Ok(Client::try_from(config)?)
    }

    /// The same for `tenant-operator`.
    pub fn args(&self) -> Vec<OsString> {
        let kubeconfig = self.kubeconfig.iter().flat_map(|path| ["--kubeconfig".into(), path.into()]);
        kubeconfig.chain(self.context.iter().flat_map(|name| ["--context".into(), name.into()])).collect()
    }
}
