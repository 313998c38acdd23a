//! `info`: what the daemon is and has.

use rorqual_core::units;
use serde_json::{Value as Json, json};

use crate::cli::{COMPATIBLE, Cli, current_context, plugin};
use crate::command::{task, typed};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::unescaped;
use crate::template::{Mode, Template};

/// `info`
pub(in crate::command) static INFO: Command = Command {
    name: "info",
    paths: &["system info", "info"],
    usage: "[OPTIONS]",
    about: "Show what the daemon is and has",
    flags: &[&[Flag::new(
        "format",
        Kind::Text("string"),
        "Form of the output: 'json' or a Go template",
    )
    .short('f')]],
    args: Args::None,
    run: task!(info),
    ..Command::EMPTY
};

async fn info(cli: &Cli, matches: &Matches) -> Outcome {
    let own = json!({
        "Debug": cli.root.on("debug"),
        "Version": COMPATIBLE,
        "GitCommit": format!("rorqual-{}", crate::cli::crate_version()),
        "GoVersion": "",
        "Os": "linux",
        "Arch": rorqual_core::Platform::host().architecture,
        "BuildTime": "",
        "Context": current_context(&cli.root, &cli.config),
        "Plugins": client_plugins(cli),
        "Warnings": null,
    });
    let (mut document, failure) = match cli.client()?.get("/info").await {
        Ok(document) => (document, None),
        Err(error) => (json!({}), Some(error.to_string())),
    };
    if let Some(text) = &failure {
        document["ServerErrors"] = json!([text]);
    }
    document["ClientInfo"] = own;
    match unescaped(matches.text("format")).as_str() {
        "" => {
            cli.print(&layout(&document, failure.is_none()))?;
            warnings(cli, &document);
        }
        "json" => cli.line(&document.to_string())?,
        format => {
            let template = Template::parse("", format).map_err(|error| Failure {
                code: 64,
                text: format!("template parsing error: {error}"),
            })?;
            let text = template
                .render(&typed::named(&document, "system.dockerInfo"), Mode::Rows)
                .map_err(|error| match &failure {
                // That there is no daemon tells more than what a template misses because of it.
                Some(text) => {
                    let _ = cli.line("");
                    Failure::new(text.clone())
                }
                None => Failure::new(error.to_string()),
            })?;
            cli.line(&text)?;
        }
    }
    match failure {
        None => Ok(0),
        Some(text) if matches.text("format").is_empty() => {
            cli.complain(&text);
            Err(Failure::new("errors pretty printing info"))
        }
        Some(text) => Err(Failure::new(text)),
    }
}

/// Describes the plugins of the command line; those that are none are listed with the reason.
fn client_plugins(cli: &Cli) -> Vec<Json> {
    let describe = |one: plugin::Plugin| {
        let (mut described, error) = match one.metadata() {
            Ok(described) => (described, None),
            Err(error) => (serde_json::Map::new(), Some(error)),
        };
        described.insert("Name".to_owned(), one.name.into());
        described.insert("Path".to_owned(), one.path.display().to_string().into());
        if let Some(error) = error {
            described.insert("Err".to_owned(), error.into());
        }
        Json::Object(described)
    };
    plugin::all(&cli.config).into_iter().map(describe).collect()
}

fn warnings(cli: &Cli, document: &Json) {
    for warning in document["Warnings"].as_array().into_iter().flatten() {
        cli.complain(warning.as_str().unwrap_or_default());
    }
}

/// Lines of `name: value`, each at its depth.
struct Lines(String);

impl Lines {
    fn put(&mut self, depth: usize, name: &str, value: impl std::fmt::Display) {
        let text = format!("{}{name}: {value}", " ".repeat(depth));
        self.0.push_str(&text);
        self.0.push('\n');
    }

    fn title(&mut self, depth: usize, name: &str) {
        self.0.push_str(&format!("{}{name}:\n", " ".repeat(depth)));
    }

    fn bare(&mut self, depth: usize, text: &str) {
        self.0.push_str(&format!("{}{text}\n", " ".repeat(depth)));
    }
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Json) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

fn layout(document: &Json, has_server: bool) -> String {
    let own = &document["ClientInfo"];
    let mut lines = Lines(String::new());
    lines.title(0, "Client");
    lines.put(1, "Version", format!("   {}", text(&own["Version"])));
    lines.put(1, "Context", format!("   {}", text(&own["Context"])));
    lines.put(1, "Debug Mode", own["Debug"].as_bool().unwrap_or(false));
    let clients: Vec<&Json> = own["Plugins"].as_array().into_iter().flatten().collect();
    if !clients.is_empty() {
        lines.title(1, "Plugins");
    }
    for one in clients {
        client_plugin(&mut lines, one);
    }
    lines.0.push_str("\nServer:\n");
    if has_server {
        counts(&mut lines, document);
        plugins(&mut lines, document);
        runtimes(&mut lines, document);
        host(&mut lines, document);
        settings(&mut lines, document);
        lines.0.push('\n');
    }
    lines.0
}

fn client_plugin(lines: &mut Lines, one: &Json) {
    let name = text(&one["Name"]);
    match one["Err"].as_str() {
        Some(error) => lines.put(2, name, format!("(invalid) {error}")),
        None => {
            let about = format!("{} ({})", text(&one["ShortDescription"]), text(&one["Vendor"]));
            lines.put(2, name, about);
            lines.put(4, "Version", format!(" {}", text(&one["Version"])));
        }
    }
    lines.put(4, "Path", format!("    {}", text(&one["Path"])));
}

fn counts(lines: &mut Lines, document: &Json) {
    let int = |key: &str| document[key].as_i64().unwrap_or(0);
    lines.put(1, "Containers", int("Containers"));
    lines.put(2, "Running", int("ContainersRunning"));
    lines.put(2, "Paused", int("ContainersPaused"));
    lines.put(2, "Stopped", int("ContainersStopped"));
    lines.put(1, "Images", int("Images"));
    lines.put(1, "Server Version", text(&document["ServerVersion"]));
    lines.put(1, "Storage Driver", text(&document["Driver"]));
    for pair in document["DriverStatus"].as_array().into_iter().flatten() {
        lines.put(2, text(&pair[0]), text(&pair[1]));
    }
    lines.put(1, "Logging Driver", text(&document["LoggingDriver"]));
    lines.put(1, "Cgroup Driver", text(&document["CgroupDriver"]));
    lines.put(1, "Cgroup Version", text(&document["CgroupVersion"]));
}

fn plugins(lines: &mut Lines, document: &Json) {
    let plugins = &document["Plugins"];
    lines.title(1, "Plugins");
    lines.put(2, "Volume", texts(&plugins["Volume"]).join(" "));
    lines.put(2, "Network", texts(&plugins["Network"]).join(" "));
    if !texts(&plugins["Authorization"]).is_empty() {
        lines.put(2, "Authorization", texts(&plugins["Authorization"]).join(" "));
    }
    lines.put(2, "Log", texts(&plugins["Log"]).join(" "));
    let directories = texts(&document["CDISpecDirs"]);
    if !directories.is_empty() {
        lines.title(1, "CDI spec directories");
        for directory in directories {
            lines.bare(2, directory);
        }
    }
    lines.put(
        1,
        "Swarm",
        match text(&document["Swarm"]["LocalNodeState"]) {
            "" => "inactive",
            state => state,
        },
    );
}

fn runtimes(lines: &mut Lines, document: &Json) {
    if let Some(runtimes) = document["Runtimes"].as_object() {
        let mut names: Vec<&str> = runtimes.keys().map(String::as_str).collect();
        names.sort_unstable();
        lines.put(1, "Runtimes", names.join(" "));
        lines.put(1, "Default Runtime", text(&document["DefaultRuntime"]));
    }
    lines.put(1, "Init Binary", text(&document["InitBinary"]));
    for (name, key) in
        [("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")]
    {
        lines.put(1, &format!("{name} version"), text(&document[key]["ID"]));
    }
    let options = texts(&document["SecurityOptions"]);
    if !options.is_empty() {
        lines.title(1, "Security Options");
    }
    for option in options {
        for (index, part) in option.split(',').enumerate() {
            let (key, value) = part.split_once('=').unwrap_or(("name", part));
            match (key, index) {
                ("name", _) => lines.bare(2, value),
                ("profile", _) => lines.put(3, "Profile", value),
                (key, _) => lines.put(3, key, value),
            }
        }
    }
}

fn host(lines: &mut Lines, document: &Json) {
    for (name, key) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ] {
        lines.put(1, name, text(&document[key]));
    }
    lines.put(1, "CPUs", document["NCPU"].as_i64().unwrap_or(0));
    let memory = document["MemTotal"].as_u64().unwrap_or(0);
    lines.put(1, "Total Memory", units::binary_size(memory));
    for (name, key) in [("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")] {
        lines.put(1, name, text(&document[key]));
    }
    let debug = document["Debug"].as_bool().unwrap_or(false);
    lines.put(1, "Debug Mode", debug);
    if debug {
        let number = |key: &str| document[key].as_i64().unwrap_or(0);
        lines.put(2, "File Descriptors", number("NFd"));
        lines.put(2, "Goroutines", number("NGoroutines"));
        lines.put(2, "System Time", text(&document["SystemTime"]));
        lines.put(2, "EventsListeners", number("NEventsListener"));
    }
}

fn settings(lines: &mut Lines, document: &Json) {
    for (name, key) in
        [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")]
    {
        if !text(&document[key]).is_empty() {
            lines.put(1, name, text(&document[key]));
        }
    }
    let labels = texts(&document["Labels"]);
    if !labels.is_empty() {
        lines.title(1, "Labels");
        for label in labels {
            lines.bare(2, label);
        }
    }
    lines.put(1, "Experimental", document["ExperimentalBuild"].as_bool().unwrap_or(false));
    let registry = &document["RegistryConfig"];
    let mut insecure = texts(&registry["InsecureRegistryCIDRs"]);
    let configured = registry["IndexConfigs"].as_object().into_iter().flatten();
    let named: Vec<&str> = configured
        .filter(|(_, one)| one["Secure"] == false)
        .map(|(name, _)| name.as_str())
        .collect();
    insecure.splice(0..0, named);
    if !insecure.is_empty() {
        lines.title(1, "Insecure Registries");
        for one in insecure {
            lines.bare(2, one);
        }
    }
    let mirrors = texts(&registry["Mirrors"]);
    if !mirrors.is_empty() {
        lines.title(1, "Registry Mirrors");
        for one in mirrors {
            lines.bare(2, one);
        }
    }
    lines.put(1, "Live Restore Enabled", document["LiveRestoreEnabled"].as_bool().unwrap_or(false));
    if !text(&document["ProductLicense"]).is_empty() {
        lines.put(1, "Product License", text(&document["ProductLicense"]));
    }
    if let Some(pools) = document["DefaultAddressPools"].as_array().filter(|all| !all.is_empty()) {
        lines.title(1, "Default Address Pools");
        for pool in pools {
            lines.bare(
                3,
                &format!(
                    "Base: {}, Size: {}",
                    text(&pool["Base"]),
                    pool["Size"].as_i64().unwrap_or(0)
                ),
            );
        }
    }
    if let Some(backend) = document["FirewallBackend"]["Driver"].as_str() {
        lines.put(1, "Firewall Backend", backend);
    }
}
