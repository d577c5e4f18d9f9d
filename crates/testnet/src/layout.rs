//! Folders, settings files and the `network.toml` of a whole network on one machine.
//!
//! Every role reads a settings file of its own, which names only what differs from its defaults:
//!
//! | role      | listens on                  | is reached at        | besides                        |
//! |-----------|-----------------------------|----------------------|--------------------------------|
//! | authority | a reserved port             | the same             | how many descriptors to expect |
//! | gateway   | a free port                 | its tap              |                                |
//! | mix       | a free port                 | its tap              |                                |
//! | client    | a socket in its folder      |                      | profile, mailbox gateway       |
//!
//! Each role's operator family is its own name. Identities are made by the roles' own `init`;
//! `network.toml` is written from what that has left in their folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use proto::{NetworkId, directory::Network};
use shell::{entropy, keys::Keys, network, state::StateDir};
use toml::{Table, Value};

use crate::network::{LAYERS, Plan};

/// Writes the files of one plan.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    plan: &'a Plan,
}

impl<'a> Layout<'a> {
    /// Writes the parameters, if there are any.
    pub(crate) fn of(plan: &'a Plan) -> anyhow::Result<Self> {
        let layout = Self { plan };
        if !plan.params.is_empty() {
            write(&layout.params(), &plan.params)?;
        }
        Ok(layout)
    }

    fn params(&self) -> PathBuf {
        self.plan.root.join("params.toml")
    }

    pub(crate) fn authority(&self, name: &str, address: &str) -> anyhow::Result<()> {
        let params = if self.plan.params.is_empty() {
            PathBuf::new()
        } else {
            self.params()
        };
        let mixes = self.plan.mixes_per_layer * LAYERS;
        self.settings(
            name,
            [
                ("listen", address.into()),
                ("metrics_listen", FREE.into()),
                ("params", text(&params)),
                ("layers", number(LAYERS)?),
                ("mixes_min", number(mixes)?),
                ("gateways_min", number(self.plan.gateways)?),
            ],
        )
    }

    /// A gateway or a mix, which others reach at `tap`.
    pub(crate) fn node(&self, name: &str, tap: &str) -> anyhow::Result<()> {
        self.settings(
            name,
            [
                ("listen", FREE.into()),
                ("advertise", tap.into()),
                ("metrics_listen", FREE.into()),
                ("family", name.into()),
            ],
        )
    }

    /// A client whose mailbox is at `gateway`, whose keys exist.
    pub(crate) fn client(&self, name: &str, gateway: &str) -> anyhow::Result<()> {
        let mailbox = network::hex(&self.identity(gateway)?);
        self.settings(
            name,
            [
                ("profile", self.plan.profile.as_str().into()),
                ("mailbox", mailbox.into()),
            ],
        )
    }

    fn settings<const N: usize>(&self, name: &str, own: [(&str, Value); N]) -> anyhow::Result<()> {
        let folder = self.plan.root.join(name);
        let mut settings = Table::new();
        settings.insert("state_dir".to_owned(), text(&folder.join("state")));
        settings.insert(
            "network".to_owned(),
            text(&self.plan.root.join("network.toml")),
        );
        if !self.plan.log.is_empty() {
            settings.insert("log".to_owned(), self.plan.log.as_str().into());
        }
        settings.extend(own.map(|(key, value)| (key.to_owned(), value)));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        write(&folder.join("settings.toml"), &settings.to_string())
    }

    /// Writes `network.toml`: names and addresses of authorities and gateways, whose keys exist.
    pub(crate) fn network(
        &self,
        authorities: &[(String, String)],
        gateways: &[(String, String)],
    ) -> anyhow::Result<()> {
        let mut keys = authorities
            .iter()
            .map(|(name, address)| Ok((self.identity(name)?, address.clone())))
            .collect::<anyhow::Result<Vec<_>>>()?;
        keys.sort();
        let bootstrap = gateways
            .iter()
            .map(|(name, address)| Ok((proto::NodeId(self.identity(name)?), address.clone())))
            .collect::<anyhow::Result<_>>()?;
        let (authorities, authority_addresses) = keys.into_iter().unzip();
        let network = Network {
            id: NetworkId(entropy::seed()),
            authorities,
            authority_addresses,
            minimum_period: 0,
            bootstrap,
        };
        network.check()?;
        write(
            &self.plan.root.join("network.toml"),
            &network::format(&network),
        )
    }

    /// The public identity key that a role's `init` has made.
    fn identity(&self, name: &str) -> anyhow::Result<[u8; 32]> {
        let state = StateDir::open(&self.plan.root.join(name).join("state"))?;
        Ok(Keys::open(state)?.id().0)
    }
}

/// A free port of this machine.
const FREE: &str = "127.0.0.1:0";

fn text(path: &Path) -> Value {
    Value::String(path.display().to_string())
}

fn number(count: usize) -> anyhow::Result<Value> {
    Ok(Value::Integer(i64::try_from(count)?))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
