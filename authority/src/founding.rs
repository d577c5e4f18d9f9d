//! `lacuna-authority network`: writes the `network.toml` of a new network.
//!
//! Its id is drawn here, so that nothing signed for another network holds in this one. Rule DIR-10
//! says what such a file must hold.

use std::io::{self, Write};

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use proto::{NetworkId, NodeId, directory::Network};
use shell::{
    entropy,
    network::{format, unhex},
};

pub(crate) fn command() -> Command {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("KEY@HOST:PORT")
            .action(ArgAction::Append)
            .required(true)
            .help(help)
    };
    Command::new("network")
        .about("Print the network.toml of a new network")
        .arg(list(
            "authority",
            "an authority, as its `init` said; four or more",
        ))
        .arg(list(
            "gateway",
            "a gateway to ask for the first document; better five",
        ))
        .arg(
            Arg::new("period")
                .long("period")
                .value_parser(value_parser!(u64))
                .default_value("0")
                .help("the first period; no document of an earlier one is believed"),
        )
}

/// Prints what the flags of [`command`] describe.
pub(crate) fn print(flags: &ArgMatches) -> anyhow::Result<()> {
    let network = network(flags, NetworkId(entropy::seed()))?;
    io::stdout()
        .write_all(format(&network).as_bytes())
        .context("writing to standard output")
}

fn network(flags: &ArgMatches, id: NetworkId) -> anyhow::Result<Network> {
    let list = |name| {
        let given = flags.get_many::<String>(name).into_iter().flatten();
        given
            .map(|text| key_at(text))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let mut authorities = list("authority")?;
    authorities.sort();
    let (authorities, authority_addresses) = authorities.into_iter().unzip();
    let gateways = list("gateway")?;
    let network = Network {
        id,
        authorities,
        authority_addresses,
        minimum_period: flags.get_one("period").copied().unwrap_or(0),
        bootstrap: gateways
            .into_iter()
            .map(|(key, address)| (NodeId(key), address))
            .collect(),
    };
    network.check()?;
    Ok(network)
}

fn key_at(text: &str) -> anyhow::Result<([u8; 32], String)> {
    let parts = text.split_once('@');
    let parts = parts.and_then(|(key, address)| Some((unhex(key)?, address.to_owned())));
    parts.ok_or_else(|| anyhow!("`{text}` must be 64 hex digits, @, host:port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> anyhow::Result<Network> {
        let line = [&["network"], arguments].concat();
        network(&command().try_get_matches_from(line)?, NetworkId([1; 32]))
    }

    /// DIR-10
    #[test]
    fn a_network_takes_four_authorities_in_any_order() {
        // Ed25519 keys of small seeds, as `init` would print them.
        let keys = [
            "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
            "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
            "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1",
            "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c",
        ];
        let [a, b, c, d] = keys.map(|key| format!("--authority={key}@127.0.0.1:9001"));
        let gateway = format!("--gateway={}@gw.example:9000", keys[0]);
        let network = run(&[&a, &b, &c, &d, &gateway, "--period=3"]).unwrap();
        assert_eq!((network.threshold(), network.minimum_period), (3, 3));
        assert!(network.authorities.is_sorted());
        for (arguments, expected) in [
            (&[a.as_str(), &b, &c, &gateway][..], "4 to 100 authorities"),
            (&[&a, &b, &c, &c, &gateway], "each once"),
            (
                &[&a, &b, &c, "--authority=12@x:1", &gateway],
                "`12@x:1` must be 64 hex digits",
            ),
            (&[&a, &b, &c, &d], "--gateway"),
        ] {
            let error = format!("{:#}", run(arguments).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
