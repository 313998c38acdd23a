//! What clients and tools made for Docker look for: texts, exit codes and fields.

use rorqual_testkit::TestResult;

use crate::{inspect, scenario};

#[test]
fn links_give_names_and_variables() -> TestResult {
    scenario(|host| {
        host.cli(["create", "--link", "nobody-here", "busybox", "true"])?
            .exits_with(1)?
            .complains("could not get container for nobody-here: No such container: nobody-here")?;
        host.cli(["run", "-d", "--name", "db1", "--expose", "80", "-e", "KEY=v", "busybox"])?
            .ok()?;
        host.cli(["wait", "db1"])?.ok()?;
        host.cli(["create", "--name", "web", "--link", "db1:my-db", "busybox", "true"])?.ok()?;
        assert_eq!(inspect(host, "web", "{{json .HostConfig.Links}}")?, r#"["/db1:/web/my-db"]"#);
        host.cli(["start", "web"])?
            .exits_with(1)?
            .complains("Cannot link to a non running container: /db1 AS /web/my-db")?;
        host.cli(["rm", "db1"])?.ok()?;

        let db = ["--name", "db2", "--expose", "80", "-e", "KEY=v", "busybox", "sleep", "1000"];
        host.cli([&["run", "-d"], db.as_slice()].concat())?.ok()?;
        let address = inspect(host, "db2", "{{.NetworkSettings.IPAddress}}")?;
        let ask = "echo $MY_DB_PORT_80_TCP_ADDR $MY_DB_ENV_KEY $MY_DB_PORT; grep -c '\tmy-db$' /etc/hosts";
        host.cli(["run", "--rm", "--link", "db2:my-db", "busybox", "sh", "-c", ask])?
            .exits_with(0)?
            .prints(&format!("{address} v tcp://{address}:80\n1"))?;
        Ok(())
    })
}

#[test]
fn execs_that_cannot_start_say_so_with_dockers_codes() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        host.cli(["exec", "-u", "nobody-here", "cc", "true"])?
            .exits_with(1)?
            .complains("unable to find user nobody-here: no matching entries in passwd file")?;
        host.cli(["exec", "-u", "root:nobody-here", "cc", "true"])?
            .exits_with(1)?
            .complains("unable to find group nobody-here: no matching entries in group file")?;
        host.cli(["exec", "-u", "12:34", "cc", "id", "-g"])?.exits_with(0)?.prints("34")?;
        host.cli(["exec", "-w", "/missing", "cc", "true"])?.exits_with(127)?;
        host.cli(["exec", "-w", "relative", "cc", "true"])?.exits_with(128)?;
        Ok(())
    })
}

#[test]
fn limits_change_as_dockers_do() -> TestResult {
    scenario(|host| {
        host.cli(["create", "--cpuset-cpus", "9999", "busybox", "true"])?
            .exits_with(1)?
            .complains("Requested CPUs are not available - requested 9999, available:")?;
        host.cli(["run", "-d", "--name", "free", "busybox", "sleep", "1000"])?.ok()?;
        host.cli(["update", "--memory", "64m", "free"])?
            .exits_with(1)?
            .complains("update the memoryswap at the same time")?;
        host.cli(["update", "--memory", "64m", "--memory-swap", "128m", "free"])?.ok()?;
        host.cli(["update", "--memory", "32m", "free"])?.ok()?;
        assert_eq!(
            inspect(host, "free", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}")?,
            "33554432 134217728"
        );
        host.cli(["update", "--cpus", "1", "free"])?.ok()?;
        host.cli(["update", "--cpu-period", "50000", "free"])?
            .exits_with(1)?
            .complains("CPU Period cannot be updated as NanoCPUs has already been set")?;
        Ok(())
    })
}

#[test]
fn namespaces_are_shared_by_id() -> TestResult {
    scenario(|host| {
        for mode in ["--pid", "--ipc"] {
            host.cli(["create", mode, "container:nobody-here", "busybox", "true"])?
                .exits_with(1)?
                .complains("No such container: nobody-here")?;
        }
        host.cli(["run", "-d", "--name", "first", "busybox", "sleep", "1000"])?.ok()?;
        host.cli(["create", "--name", "joins", "--pid", "container:first", "busybox", "true"])?
            .ok()?;
        let id = inspect(host, "first", "{{.Id}}")?;
        assert_eq!(inspect(host, "joins", "{{.HostConfig.PidMode}}")?, format!("container:{id}"));
        host.cli(["rename", "first", "second"])?.ok()?;
        host.cli(["start", "-a", "joins"])?.exits_with(0)?;
        Ok(())
    })
}

#[test]
fn inspect_tells_where_the_layers_are() -> TestResult {
    scenario(|host| {
        host.cli([
            "run",
            "-d",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "echo hi > /new; sleep 1000",
        ])?
        .ok()?;
        rorqual_testkit::eventually("the file is there", || {
            host.cli(["exec", "cc", "test", "-e", "/new"]).ok().filter(|done| done.code == 0)
        })?;
        let upper = inspect(host, "cc", "{{.GraphDriver.Data.UpperDir}}")?;
        assert_eq!(std::fs::read_to_string(format!("{upper}/new"))?, "hi\n");
        let merged = inspect(host, "cc", "{{.GraphDriver.Data.MergedDir}}")?;
        assert_eq!(std::fs::read_to_string(format!("{merged}/new"))?, "hi\n");
        assert!(std::path::Path::new(&format!("{merged}/bin/busybox")).exists());
        Ok(())
    })
}
