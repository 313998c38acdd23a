//! What the table of the daemon says, as data. Sends nothing.
//!
//! ```text
//! raw          prerouting: addressed to a container from outside its bridge → drop; from a container to 127/8 → drop
//! dnat         prerouting, output: to this host, and in a map of published ports → the container
//! postrouting  out of a bridge's subnet to elsewhere, or back into it after translation → the address of the interface
//! forward      into a bridge: answers, published ports, neighbours (icc) → accept; all else → drop
//! ```

use rorqual_sys::nft::{
    Base, Compare, DataType, Element, ElementData, Expression, Hook, MapTo, Meta, Nat, PayloadBase,
    Set, Transaction, Verdict,
};

use crate::design::GatewayMode;

use super::{BridgePolicy, Router};

/// The maps of published ports of one family.
pub(super) struct Maps {
    /// On all addresses: protocol, port → container's address, port.
    pub(super) all: Set<'static>,
    /// On one address.
    pub(super) one: Set<'static>,
    /// On all addresses: protocol, ports → container's address, the port kept.
    pub(super) all_ranges: Set<'static>,
    /// On one address.
    pub(super) one_ranges: Set<'static>,
}

const fn published(
    name: &'static str,
    key: &'static [DataType],
    to: &'static [DataType],
    interval: bool,
) -> Set<'static> {
    Set { name, key, to: Some(MapTo::Values(to)), interval }
}

pub(super) const MAPS4: Maps = {
    const ALL: &[DataType] = &[DataType::Protocol, DataType::Port];
    const ONE: &[DataType] = &[DataType::Ipv4, DataType::Protocol, DataType::Port];
    const TO: &[DataType] = &[DataType::Ipv4, DataType::Port];
    Maps {
        all: published("published", ALL, TO, false),
        one: published("published-on", ONE, TO, false),
        all_ranges: published("published-ranges", ALL, &[DataType::Ipv4], true),
        one_ranges: published("published-ranges-on", ONE, &[DataType::Ipv4], true),
    }
};
pub(super) const MAPS6: Maps = {
    const ALL: &[DataType] = &[DataType::Protocol, DataType::Port];
    const ONE: &[DataType] = &[DataType::Ipv6, DataType::Protocol, DataType::Port];
    const TO: &[DataType] = &[DataType::Ipv6, DataType::Port];
    Maps {
        all: published("published6", ALL, TO, false),
        one: published("published6-on", ONE, TO, false),
        all_ranges: published("published6-ranges", ALL, &[DataType::Ipv6], true),
        one_ranges: published("published6-ranges-on", ONE, &[DataType::Ipv6], true),
    }
};
/// Ports of containers that may be addressed directly.
pub(super) const OPEN: Set<'_> = Set {
    name: "open",
    key: &[DataType::Ipv4, DataType::Protocol, DataType::Port],
    to: None,
    interval: true,
};
/// The same for IPv6.
pub(super) const OPEN6: Set<'_> = Set {
    name: "open6",
    key: &[DataType::Ipv6, DataType::Protocol, DataType::Port],
    to: None,
    interval: true,
};
/// Published ports that the host does not get at `::1`.
pub(super) const REFUSED6: Set<'_> =
    Set { name: "refused6", key: &[DataType::Protocol, DataType::Port], to: None, interval: true };
/// Our bridges.
const BRIDGES: Set<'_> =
    Set { name: "bridges", key: &[DataType::InterfaceName], to: None, interval: false };
/// Subnet of a destination → who may address it from where.
const GUARD: Set<'_> =
    Set { name: "guard", key: &[DataType::Ipv4], to: Some(MapTo::Verdict), interval: true };
/// Subnet of a source → how it leaves.
const LEAVE: Set<'_> =
    Set { name: "leave", key: &[DataType::Ipv4], to: Some(MapTo::Verdict), interval: true };
/// The same for IPv6.
const GUARD6: Set<'_> =
    Set { name: "guard6", key: &[DataType::Ipv6], to: Some(MapTo::Verdict), interval: true };
/// The same for IPv6.
const LEAVE6: Set<'_> =
    Set { name: "leave6", key: &[DataType::Ipv6], to: Some(MapTo::Verdict), interval: true };
/// Bridges that nothing leaves.
const INTERNAL: Set<'_> = Set {
    name: "internal",
    key: &[DataType::InterfaceName],
    to: Some(MapTo::Verdict),
    interval: false,
};
/// Bridge a packet goes into → what may enter.
const ENTER: Set<'_> = Set {
    name: "enter",
    key: &[DataType::InterfaceName],
    to: Some(MapTo::Verdict),
    interval: false,
};

/// `RTN_LOCAL`
const THIS_HOST: u32 = 2;
/// `IPS_DST_NAT`
const TRANSLATED: u32 = 1 << 5;
/// Bits of the states "established" and "related".
const ANSWER: u32 = 1 << 1 | 1 << 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const SOURCE6: u32 = 8;
const DESTINATION6: u32 = 24;
const LOOPBACK: u8 = 127;

type Rule<'a> = Vec<Expression<'a>>;

fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn ipv4<'a>() -> Rule<'a> {
    vec![
        Expression::Meta(Meta::NetworkProtocol, 1),
        Expression::Compare(1, Compare::Equal, vec![2]),
    ]
}

fn ipv6<'a>() -> Rule<'a> {
    vec![
        Expression::Meta(Meta::NetworkProtocol, 1),
        Expression::Compare(1, Compare::Equal, vec![10]),
    ]
}

fn interface<'a>(which: Meta, how: Compare, name: &str) -> Rule<'a> {
    vec![Expression::Meta(which, 1), Expression::Compare(1, how, name_bytes(name))]
}

fn any_bridge<'a>(which: Meta) -> Rule<'a> {
    vec![Expression::Meta(which, 1), Expression::Lookup(BRIDGES.name, 1, None)]
}

fn address_in_loopback<'a>(offset: u32) -> Rule<'a> {
    vec![
        Expression::Payload(PayloadBase::Network, offset, 1, 1),
        Expression::Compare(1, Compare::Equal, vec![LOOPBACK]),
    ]
}

fn answers<'a>() -> Rule<'a> {
    vec![
        Expression::ConnectionState(1),
        Expression::Mask(1, ANSWER),
        Expression::Compare(1, Compare::NotEqual, vec![0; 4]),
    ]
}

fn translated<'a>() -> Rule<'a> {
    vec![
        Expression::ConnectionStatus(1),
        Expression::Mask(1, TRANSLATED),
        Expression::Compare(1, Compare::NotEqual, vec![0; 4]),
    ]
}

fn verdict<'a>(verdict: Verdict) -> Rule<'a> {
    vec![Expression::Verdict(verdict)]
}

/// Appends all of the table but the published ports.
pub(super) fn put_skeleton(
    all: &mut Transaction,
    table: &str,
    bridges: &[BridgePolicy],
    router: Router,
) {
    for Maps { all: any, one, all_ranges, one_ranges } in [MAPS4, MAPS6] {
        for map in [any, one, all_ranges, one_ranges] {
            all.add_set(table, &map);
        }
    }
    for set in [BRIDGES, GUARD, GUARD6, LEAVE, LEAVE6, INTERNAL, ENTER, OPEN, OPEN6, REFUSED6] {
        all.add_set(table, &set);
    }
    for bridge in bridges {
        put_bridge(all, table, bridge);
    }
    put_raw(all, table);
    put_nat(all, table);
    put_forward(all, table, router);
}

fn put_bridge(all: &mut Transaction, table: &str, bridge: &BridgePolicy) {
    let name = bridge.name.as_str();
    let chain = |part: &str| format!("{part}-{name}");
    let (guard, leave, enter) = (chain("guard"), chain("leave"), chain("enter"));
    let mut add = |chain: &str, rules: &[Rule<'_>]| {
        all.add_chain(table, chain, None);
        for rule in rules {
            all.add_rule(table, chain, rule);
        }
    };
    let from_elsewhere = || interface(Meta::InputName, Compare::NotEqual, name);
    let trusted = bridge.trusted.iter().filter(|_| !bridge.internal);
    let mut guarding = trusted
        .map(|by| {
            [interface(Meta::InputName, Compare::Equal, by), verdict(Verdict::Return)].concat()
        })
        .collect::<Vec<_>>();
    guarding.push([from_elsewhere(), verdict(Verdict::Drop)].concat());
    add(&guard, &guarding);
    add(&leave, &leaving(bridge));
    add(&enter, &entering(bridge));

    let jump = |to: &str| ElementData::Verdict(Verdict::Jump(to.to_owned()));
    let range = |first: Vec<u8>, behind: Option<Vec<u8>>, to: &str| {
        // The last address of all has none behind it; a range without an end reaches to it.
        let end = behind.map(Element::end);
        [Some(Element::new(first, jump(to))), end].into_iter().flatten().collect::<Vec<_>>()
    };
    // Who is reached directly is not guarded.
    let guarded =
        |mode| bridge.internal || matches!(mode, GatewayMode::Nat | GatewayMode::Isolated);
    if let Some(subnet) = bridge.subnet {
        let first = subnet.first().octets().to_vec();
        let behind = subnet.last().to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec());
        if guarded(bridge.mode4) {
            all.add_elements(table, GUARD.name, &range(first.clone(), behind.clone(), &guard));
        }
        all.add_elements(table, LEAVE.name, &range(first, behind, &leave));
    }
    if let Some(subnet) = bridge.subnet6 {
        let first = subnet.first().octets().to_vec();
        let behind = subnet.last().to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec());
        if guarded(bridge.mode6) {
            all.add_elements(table, GUARD6.name, &range(first.clone(), behind.clone(), &guard));
        }
        all.add_elements(table, LEAVE6.name, &range(first, behind, &leave));
    }
    if bridge.internal {
        let exit = chain("exit");
        let elsewhere = interface(Meta::OutputName, Compare::NotEqual, name);
        all.add_chain(table, &exit, None);
        all.add_rule(table, &exit, &[elsewhere, verdict(Verdict::Drop)].concat());
        let element = Element::new(name_bytes(name), jump(&exit));
        all.add_elements(table, INTERNAL.name, &[element]);
    }
    let key = name_bytes(name);
    let entrance = Element::new(key.clone(), jump(&enter));
    all.add_elements(table, ENTER.name, &[entrance]);
    all.add_elements(table, BRIDGES.name, &[Element::new(key, ElementData::None)]);
}

/// How packets of a bridge's containers leave.
fn leaving<'a>(bridge: &BridgePolicy) -> Vec<Rule<'a>> {
    let name = bridge.name.as_str();
    let (back_in, elsewhere) = (Compare::Equal, Compare::NotEqual);
    let going = |how| interface(Meta::OutputName, how, name);
    // Without a source of its own, the answer to a neighbour would go there directly, untranslated.
    let mut rules = vec![[going(back_in), translated(), vec![Expression::Masquerade]].concat()];
    if !bridge.masquerade || bridge.internal {
        return rules;
    }
    let (translates4, translates6) = bridge.translates();
    let source = |address: Vec<u8>, ipv6| {
        vec![Expression::Load(1, address), Expression::SourceNat { address: 1, ipv6 }]
    };
    if translates4 {
        let own = bridge.leave_as.0.map(|own| source(own.octets().to_vec(), false));
        let how = own.unwrap_or_else(|| vec![Expression::Masquerade]);
        rules.push([ipv4(), going(elsewhere), how].concat());
    }
    if translates6 {
        let own = bridge.leave_as.1.map(|own| source(own.octets().to_vec(), true));
        let how = own.unwrap_or_else(|| vec![Expression::Masquerade]);
        rules.push([ipv6(), going(elsewhere), how].concat());
    }
    rules
}

/// What may be forwarded into a bridge.
fn entering<'a>(bridge: &BridgePolicy) -> Vec<Rule<'a>> {
    let accept = || verdict(Verdict::Accept);
    let mut rules = Vec::new();
    if !bridge.internal {
        rules.push([answers(), accept()].concat());
        rules.push([translated(), accept()].concat());
    }
    if bridge.icc {
        let neighbour = interface(Meta::InputName, Compare::Equal, &bridge.name);
        rules.push([neighbour, accept()].concat());
    }
    if !bridge.internal {
        let (opens4, opens6) = bridge.opens();
        rules.extend(open_directly(ipv4(), (bridge.mode4, opens4), false));
        rules.extend(open_directly(ipv6(), (bridge.mode6, opens6), true));
    }
    rules.push(verdict(Verdict::Drop));
    rules
}

/// What may enter a bridge without translation.
fn open_directly(
    family: Rule<'_>,
    (mode, opens): (GatewayMode, bool),
    ipv6: bool,
) -> Vec<Rule<'_>> {
    let accept = || verdict(Verdict::Accept);
    if mode == GatewayMode::NatUnprotected {
        return vec![[family, accept()].concat()];
    }
    let mut rules = Vec::new();
    if mode == GatewayMode::Routed {
        // ICMP or ICMPv6: who is routed to can be looked for.
        let control = vec![
            Expression::Meta(Meta::TransportProtocol, 1),
            Expression::Compare(1, Compare::Equal, vec![if ipv6 { 58 } else { 1 }]),
        ];
        rules.push([family.clone(), control, accept()].concat());
    }
    if opens {
        let (set, at, length, first, next) = if ipv6 {
            (OPEN6.name, DESTINATION6, 16, 1, 12)
        } else {
            (OPEN.name, DESTINATION, 4, 8, 9)
        };
        let open = vec![
            Expression::Payload(PayloadBase::Network, at, length, first),
            Expression::Meta(Meta::TransportProtocol, next),
            Expression::Payload(PayloadBase::Transport, 2, 2, next + 1),
            Expression::Lookup(set, 1, None),
        ];
        rules.push([family, open, accept()].concat());
    }
    rules
}

fn put_raw(all: &mut Transaction, table: &str) {
    let chain = "raw";
    all.add_chain(
        table,
        chain,
        Some(Base { kind: "filter", hook: Hook::Prerouting, priority: -300 }),
    );
    let guard = vec![
        Expression::Payload(PayloadBase::Network, DESTINATION, 4, 1),
        Expression::VerdictMap(GUARD.name, 1),
    ];
    // Bridges route loopback addresses, for the host's own way to published ports; containers must not profit.
    for offset in [SOURCE, DESTINATION] {
        let forged = [ipv4(), address_in_loopback(offset), any_bridge(Meta::InputName)].concat();
        all.add_rule(table, chain, &[forged, verdict(Verdict::Drop)].concat());
    }
    all.add_rule(table, chain, &[ipv4(), guard].concat());
    let guard = vec![
        Expression::Payload(PayloadBase::Network, DESTINATION6, 16, 1),
        Expression::VerdictMap(GUARD6.name, 1),
    ];
    all.add_rule(table, chain, &[ipv6(), guard].concat());
}

/// What leads published ports to containers, per map: the family, and how. Single addresses come before all of them.
fn translations<'a>() -> Vec<(Rule<'a>, Rule<'a>)> {
    let port = |at, of| {
        vec![
            Expression::Meta(Meta::TransportProtocol, at),
            Expression::Payload(PayloadBase::Transport, 2, 2, of),
        ]
    };
    let to = |map: &Set<'a>, port, ipv6| {
        vec![
            Expression::Lookup(map.name, 1, Some(1)),
            Expression::DestinationNat(Nat { address: 1, port, ipv6 }),
        ]
    };
    let on4 = || vec![Expression::Payload(PayloadBase::Network, DESTINATION, 4, 8)];
    let on6 = || vec![Expression::Payload(PayloadBase::Network, DESTINATION6, 16, 1)];
    // An IPv6 address fills the first register of sixteen bytes, whose neighbours in parts of four begin at 12.
    vec![
        (ipv4(), [on4(), port(9, 10), to(&MAPS4.one, Some(9), false)].concat()),
        (ipv4(), [on4(), port(9, 10), to(&MAPS4.one_ranges, None, false)].concat()),
        (ipv4(), [port(8, 9), to(&MAPS4.all, Some(9), false)].concat()),
        (ipv4(), [port(8, 9), to(&MAPS4.all_ranges, None, false)].concat()),
        (ipv6(), [on6(), port(12, 13), to(&MAPS6.one, Some(12), true)].concat()),
        (ipv6(), [on6(), port(12, 13), to(&MAPS6.one_ranges, None, true)].concat()),
        (ipv6(), [port(8, 9), to(&MAPS6.all, Some(12), true)].concat()),
        (ipv6(), [port(8, 9), to(&MAPS6.all_ranges, None, true)].concat()),
    ]
}

fn put_nat(all: &mut Transaction, table: &str) {
    for (chain, hook) in [("dnat", Hook::Prerouting), ("dnat-output", Hook::Output)] {
        all.add_chain(table, chain, Some(Base { kind: "nat", hook, priority: -100 }));
        if hook == Hook::Prerouting {
            // What comes from elsewhere for 127/8 is no business of ours: translated, the kernel would no longer see that it
            // must not be.
            let from_elsewhere = interface(Meta::InputName, Compare::NotEqual, "lo");
            let stray = [ipv4(), address_in_loopback(DESTINATION), from_elsewhere].concat();
            all.add_rule(table, chain, &[stray, verdict(Verdict::Accept)].concat());
        } else {
            // The relay's, and no answer from a bridge would be taken for it.
            let own = [ipv6(), to_loopback6(), verdict(Verdict::Accept)].concat();
            all.add_rule(table, chain, &own);
        }
        for translation in translations() {
            let to_this_host = vec![
                Expression::DestinationKind(1),
                Expression::Compare(1, Compare::Equal, THIS_HOST.to_ne_bytes().to_vec()),
            ];
            all.add_rule(table, chain, &[translation.0, to_this_host, translation.1].concat());
        }
    }
    put_refusal(all, table);
    let chain = "postrouting";
    all.add_chain(table, chain, Some(Base { kind: "nat", hook: Hook::Postrouting, priority: 100 }));
    let from_loopback = [address_in_loopback(SOURCE), any_bridge(Meta::OutputName)].concat();
    all.add_rule(table, chain, &[ipv4(), from_loopback, vec![Expression::Masquerade]].concat());
    let leave = vec![
        Expression::Payload(PayloadBase::Network, SOURCE, 4, 1),
        Expression::VerdictMap(LEAVE.name, 1),
    ];
    all.add_rule(table, chain, &[ipv4(), leave].concat());
    let leave = vec![
        Expression::Payload(PayloadBase::Network, SOURCE6, 16, 1),
        Expression::VerdictMap(LEAVE6.name, 1),
    ];
    all.add_rule(table, chain, &[ipv6(), leave].concat());
}

/// Refuses what the host sends to published ports at `::1` that are not relayed: unlike with 127.0.0.1, the kernel does not
/// take answers for that address from a bridge, and a client that is refused tries the next address at once.
fn put_refusal(all: &mut Transaction, table: &str) {
    let chain = "refuse-loopback6";
    let before_translation = Base { kind: "filter", hook: Hook::Output, priority: -150 };
    all.add_chain(table, chain, Some(before_translation));
    for tcp in [true, false] {
        let how = if tcp { Compare::Equal } else { Compare::NotEqual };
        let rule = vec![
            Expression::Meta(Meta::TransportProtocol, 1),
            Expression::Compare(1, how, vec![6]),
            Expression::Meta(Meta::TransportProtocol, 8),
            Expression::Payload(PayloadBase::Transport, 2, 2, 9),
            Expression::Lookup(REFUSED6.name, 1, None),
            Expression::Refuse(tcp),
        ];
        all.add_rule(table, chain, &[ipv6(), to_loopback6(), rule].concat());
    }
}

fn to_loopback6<'a>() -> Rule<'a> {
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
    vec![
        Expression::Payload(PayloadBase::Network, DESTINATION6, 16, 1),
        Expression::Compare(1, Compare::Equal, loopback),
    ]
}

fn put_forward(all: &mut Transaction, table: &str, router: Router) {
    let chain = "forward";
    all.add_chain(table, chain, Some(Base { kind: "filter", hook: Hook::Forward, priority: 0 }));
    let enter = [Expression::Meta(Meta::OutputName, 1), Expression::VerdictMap(ENTER.name, 1)];
    // ORDER: what may not leave is dropped before another bridge lets it in.
    let exit = [Expression::Meta(Meta::InputName, 1), Expression::VerdictMap(INTERNAL.name, 1)];
    all.add_rule(table, chain, &exit);
    all.add_rule(table, chain, &enter);
    if router == Router::OnlyBridges {
        // A device without a kind does not even compare as different, so the rule names what may pass.
        for which in [Meta::InputKind, Meta::OutputKind] {
            let bridge = interface(which, Compare::Equal, "bridge");
            all.add_rule(table, chain, &[bridge, verdict(Verdict::Accept)].concat());
        }
        all.add_rule(table, chain, &verdict(Verdict::Drop));
    }
}
