//! Commands on networks.

use serde_json::{Map, Value as Json, json};

use super::create::list_or_null;
use super::lifecycle::{prune_filters, pruned};
use super::volume::{natural, object};
use super::{inspect, list, task};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, filters, query, short_id};
use crate::output::{Listing, chosen_format};
use crate::template::{Record, Value};

/// `network`
pub(super) static GROUP: Command = Command {
    name: "network",
    usage: "COMMAND",
    about: "Manage networks",
    children: &[&CONNECT, &CREATE, &DISCONNECT, &inspect::NETWORK, &LS, &PRUNE, &RM],
    ..Command::EMPTY
};

static CONNECT: Command = Command {
    name: "connect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    flags: &[&[
        Flag::new("alias", Kind::Commas("strings"), "Further name of the container in the network"),
        Flag::new("driver-opt", Kind::Commas("strings"), "Option of the network's driver"),
        Flag::new(
            "gw-priority",
            Kind::Int,
            "The network of the highest number has the default gateway",
        ),
        Flag::new("ip", Kind::Text("string"), "IPv4 address (e.g., \"172.30.100.104\")"),
        Flag::new("ip6", Kind::Text("string"), "IPv6 address (e.g., \"2001:db8::33\")"),
        Flag::new("link", Kind::List("list"), "Link to another container"),
        Flag::new("link-local-ip", Kind::Commas("strings"), "Link-local address of the container"),
    ]],
    args: Args::Exactly(2),
    run: task!(connect),
    completes: Completes::Networks,
    ..Command::EMPTY
};

static CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    flags: &[&[
        Flag::new("attachable", Kind::Bool, "Let containers connect by hand"),
        Flag::new("aux-address", Kind::List("map"), "Address the driver must not give away"),
        Flag::new("config-from", Kind::Text("string"), "Network to copy the configuration from"),
        Flag::new("config-only", Kind::Bool, "Create a configuration only"),
        Flag::new("driver", Kind::Text("string"), "Driver of the network")
            .short('d')
            .default("bridge"),
        Flag::new("gateway", Kind::Commas("strings"), "Gateway of the subnet"),
        Flag::new("ingress", Kind::Bool, "Create the network of a swarm's routing mesh"),
        Flag::new("internal", Kind::Bool, "Keep the network apart from others"),
        Flag::new("ip-range", Kind::Commas("strings"), "Give away addresses of this part only"),
        Flag::new("ipam-driver", Kind::Text("string"), "Driver that gives addresses away")
            .default("default"),
        Flag::new("ipam-opt", Kind::List("map"), "Option of that driver"),
        Flag::new("ipv4", Kind::Bool, "Give IPv4 addresses away").default("true"),
        Flag::new("ipv6", Kind::Bool, "Give IPv6 addresses away"),
        Flag::new("label", Kind::List("list"), "Set a label"),
        Flag::new("opt", Kind::List("map"), "Option of the driver").short('o'),
        Flag::new("scope", Kind::Text("string"), "Scope of the network"),
        Flag::new("subnet", Kind::Commas("strings"), "Subnet in CIDR form"),
    ]],
    args: Args::Exactly(1),
    run: task!(create),
    ..Command::EMPTY
};

static DISCONNECT: Command = Command {
    name: "disconnect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    flags: &[&[Flag::new("force", Kind::Bool, "Also when the container is not there").short('f')]],
    args: Args::Exactly(2),
    run: task!(disconnect),
    completes: Completes::Networks,
    ..Command::EMPTY
};

static LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    paths: &["network ls", "network list"],
    usage: "[OPTIONS]",
    about: "List networks",
    flags: &[&[
        Flag::new("filter", Kind::List("filter"), "Show only what fits (e.g. \"driver=bridge\")")
            .short('f'),
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("no-trunc", Kind::Bool, "Don't shorten"),
        Flag::new("quiet", Kind::Bool, "Show only IDs").short('q'),
    ]],
    args: Args::None,
    run: task!(ls),
    ..Command::EMPTY
};

static PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove networks no container uses",
    flags: &[&[
        Flag::new(
            "filter",
            Kind::List("filter"),
            "Remove only what fits (e.g. \"until=<timestamp>\")",
        ),
        Flag::new("force", Kind::Bool, "Don't ask").short('f'),
    ]],
    args: Args::None,
    run: task!(prune),
    ..Command::EMPTY
};

static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    paths: &["network rm", "network remove"],
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    flags: &[
        &[Flag::new("force", Kind::Bool, "Don't mind networks that are not there").short('f')],
    ],
    args: Args::AtLeast(1),
    run: task!(remove),
    completes: Completes::Networks,
    ..Command::EMPTY
};

async fn connect(cli: &Cli, matches: &Matches) -> Outcome {
    let mut addresses = Map::new();
    for (flag, key) in [("ip", "IPv4Address"), ("ip6", "IPv6Address")] {
        if !matches.text(flag).is_empty() {
            addresses.insert(key.to_owned(), matches.text(flag).into());
        }
    }
    if matches.given("link-local-ip") {
        addresses.insert("LinkLocalIPs".to_owned(), json!(matches.list("link-local-ip")));
    }
    for option in matches.list("driver-opt") {
        if !option.contains('=') {
            return Err(Failure::new("invalid key/value pair format in driver options"));
        }
    }
    let options = object(matches.list("driver-opt"));
    let document = json!({
        "Container": matches.word(1),
        "EndpointConfig": {
            "IPAMConfig": addresses,
            "Links": list_or_null(matches.list("link")),
            "Aliases": list_or_null(matches.list("alias")),
            "DriverOpts": options,
            "GwPriority": matches.int("gw-priority"),
        },
    });
    cli.post(format!("/networks/{}/connect", encoded(matches.word(0))), document).await?;
    Ok(0)
}

async fn disconnect(cli: &Cli, matches: &Matches) -> Outcome {
    let document = json!({ "Container": matches.word(1), "Force": matches.on("force") });
    cli.post(format!("/networks/{}/disconnect", encoded(matches.word(0))), document).await?;
    Ok(0)
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let ipam = address_pools(matches).map_err(Failure::new)?;
    let ipv4 = if matches.given("ipv4") { json!(matches.on("ipv4")) } else { Json::Null };
    let ipv6 = if matches.given("ipv6") { json!(matches.on("ipv6")) } else { Json::Null };
    let mut document = json!({
        "Driver": matches.text("driver"),
        "Scope": matches.text("scope"),
        "EnableIPv4": ipv4,
        "EnableIPv6": ipv6,
        "IPAM": {
            "Driver": matches.text("ipam-driver"),
            "Options": object(matches.list("ipam-opt")),
            "Config": ipam,
        },
        "Internal": matches.on("internal"),
        "Attachable": matches.on("attachable"),
        "Ingress": matches.on("ingress"),
        "ConfigOnly": matches.on("config-only"),
        "ConfigFrom": null,
        "Options": object(matches.list("opt")),
        "Labels": object(matches.list("label")),
        "Name": matches.word(0),
    });
    if !matches.text("config-from").is_empty() {
        document["ConfigFrom"] = json!({ "Network": matches.text("config-from") });
    }
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|key, value| !(value.is_null() && key.starts_with("Enable")));
    }
    let answer = cli.post("/networks/create", document).await?;
    if let Some(warning) = answer["Warning"].as_str().filter(|text| !text.is_empty()) {
        cli.complain(&format!("WARNING: {warning}"));
    }
    cli.line(answer["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}

/// A subnet, and whether an address lies in it.
struct Subnet<'a> {
    text: &'a str,
    base: u128,
    bits: u32,
    length: u32,
}

impl<'a> Subnet<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        // COMPAT: docker's text.
        let invalid = || format!("invalid subnet {text}: invalid CIDR address: {text}");
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let (base, bits) = number(address).ok_or_else(invalid)?;
        let length = length.parse().ok().filter(|length| *length <= bits).ok_or_else(invalid)?;
        Ok(Self { text, base, bits, length })
    }

    fn has(&self, address: &str) -> bool {
        let address = address.split('/').next().unwrap_or(address);
        let Some((value, bits)) = number(address) else { return false };
        let shift = self.bits - self.length;
        let head = |value: u128| if shift >= 128 { 0 } else { value >> shift };
        bits == self.bits && head(value) == head(self.base)
    }
}

fn number(address: &str) -> Option<(u128, u32)> {
    match address.parse::<std::net::IpAddr>().ok()? {
        std::net::IpAddr::V4(v4) => Some((u128::from(u32::from(v4)), 32)),
        std::net::IpAddr::V6(v6) => Some((u128::from(v6), 128)),
    }
}

/// `IPAM.Config`: subnets with the ranges, gateways and reserved addresses that lie in each.
fn address_pools(matches: &Matches) -> Result<Vec<Json>, String> {
    if let [one] = matches.list("subnet")
        && !["ip-range", "gateway", "aux-address"].iter().any(|flag| matches.given(flag))
    {
        // COMPAT: with nothing to compare it with, it is the daemon's to judge.
        return Ok(vec![json!({ "Subnet": one })]);
    }
    let subnets: Vec<Subnet> =
        matches.list("subnet").iter().map(|text| Subnet::read(text)).collect::<Result<_, _>>()?;
    for (index, one) in subnets.iter().enumerate() {
        if subnets[..index].iter().any(|other| other.has(one.text) || one.has(other.text)) {
            return Err("multiple overlapping subnet configuration is not supported".to_owned());
        }
    }
    let mut pools: Vec<Json> =
        subnets.iter().map(|subnet| json!({ "Subnet": subnet.text })).collect();
    if pools.is_empty() && (matches.given("ip-range") || matches.given("gateway")) {
        return Err("every ip-range or gateway must have a corresponding subnet".to_owned());
    }
    let find = |address: &str| subnets.iter().position(|subnet| subnet.has(address));
    for (flag, key, label) in [("ip-range", "IPRange", "range"), ("gateway", "Gateway", "gateway")]
    {
        for address in matches.list(flag) {
            let at =
                find(address).ok_or_else(|| format!("no matching subnet for {label} {address}"))?;
            if pools[at].get(key).is_some() {
                return Err(format!(
                    "cannot configure multiple {label}s ({address}) on the same subnet ({})",
                    subnets[at].text
                ));
            }
            pools[at][key] = address.as_str().into();
        }
    }
    for pair in matches.list("aux-address") {
        let (name, address) = pair.split_once('=').unwrap_or((pair, ""));
        let at =
            find(address).ok_or_else(|| format!("no matching subnet for aux-address {address}"))?;
        pools[at]["AuxiliaryAddresses"][name] = address.into();
    }
    Ok(pools)
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

async fn ls(cli: &Cli, matches: &Matches) -> Outcome {
    let filters = filters(matches.list("filter")).map_err(Failure::new)?;
    let answer = cli.get(format!("/networks{}", query(&[("filters", &filters)]))).await?;
    let mut networks: Vec<&Json> = answer.as_array().into_iter().flatten().collect();
    networks.sort_by_key(|network| natural(network["Name"].as_str().unwrap_or_default()));
    let whole = matches.on("no-trunc");
    let row = |network: &Json| {
        let text = |key: &str| network[key].as_str().unwrap_or_default();
        let flag = |key: &str| network[key].as_bool().unwrap_or(false).to_string();
        let id = if whole { text("Id").to_owned() } else { short_id(text("Id")) };
        let fields = vec![
            ("CreatedAt", Value::from(created(text("Created")))),
            ("Driver", text("Driver").into()),
            ("ID", id.into()),
            ("IPv4", flag("EnableIPv4").into()),
            ("IPv6", flag("EnableIPv6").into()),
            ("Internal", flag("Internal").into()),
            ("Labels", list::labels(&network["Labels"]).into()),
            ("Name", text("Name").into()),
            ("Scope", text("Scope").into()),
        ];
        Record::row("network.networkContext", fields).with_labels(&network["Labels"])
    };
    let quiet = matches.on("quiet");
    let mut format = chosen_format(cli, matches.text("format"), "networksFormat", quiet);
    if quiet && matches.text("format").is_empty() {
        format = "{{.ID}}".to_owned();
    }
    let listing = Listing {
        raw: "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n",
        ..Listing::new("{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", HEADERS)
    };
    listing.show(cli, networks.into_iter().map(row).collect(), &format)?;
    Ok(0)
}

/// `2026-11-20T23:14:05.1Z` → `2026-11-20 23:14:05.1 +0000 UTC`
fn created(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(utc) => format!("{} +0000 UTC", utc.replace('T', " ")),
        None => text.to_owned(),
    }
}

async fn prune(cli: &Cli, matches: &Matches) -> Outcome {
    let question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?";
    let filters = prune_filters(cli, matches)?;
    if !matches.on("force") && !cli.confirm(question)? {
        return Ok(0);
    }
    let answer =
        cli.post(format!("/networks/prune{}", query(&[("filters", &filters)])), Json::Null).await?;
    cli.print(&pruned(&answer, "NetworksDeleted", "Deleted Networks:").0)?;
    Ok(0)
}

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let mut failed = false;
    for name in &matches.words {
        match client.delete(format!("/networks/{}", encoded(name))).await {
            Ok(_) => cli.line(name)?,
            Err(error) if matches.on("force") && error.is_not_found() => {}
            Err(error) => {
                failed = true;
                cli.complain(&error.to_string());
            }
        }
    }
    if failed { Err(Failure::new("exit status 1")) } else { Ok(0) }
}
