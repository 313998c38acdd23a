use super::*;

fn titles(args: &str) -> String {
    match Format::parse(args) {
        Ok(format) => {
            format.columns.iter().map(|(_, title)| title.as_str()).collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn arguments_choose_columns() {
    let table = [
        ("", "UID PID PPID C STIME TTY TIME CMD"),
        ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
        ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("-aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("ax", "PID TTY STAT TIME COMMAND"),
        ("-e", "PID TTY TIME CMD"),
        ("-o pid,comm", "PID COMMAND"),
        ("-eo pid,user,args", "PID USER COMMAND"),
        ("-o pid -o ppid", "PID PPID"),
        ("axo pid,etime", "PID ELAPSED"),
        ("-o pid,comm=Name", "PID Name"),
        ("-o comm", "error: Couldn't find PID field in ps output"),
        ("-o pid,nonsense", "error: ps: error: unknown user-defined format specifier \"nonsense\""),
        ("--forest", "error: ps option \"--forest\" is not supported"),
        ("-C sh", "error: ps option 'C' is not supported"),
    ];
    for (args, expected) in table {
        assert_eq!(titles(args), expected, "{args:?}");
    }
}

#[test]
fn names_with_parentheses_are_read() {
    let process = Process::parse_stat("7 (a) (b) S 1 7 7 34816 7 4194304").unwrap();
    assert_eq!((process.pid, process.comm.as_str(), process.state), (7, "a) (b", 'S'));
    assert_eq!(process.field(4), 1);
    assert_eq!(Column::Tty.render(&process, &Host::read()), "pts/0");
    assert_eq!(Column::Stat.render(&process, &Host::read()), "Ss+");
}

#[test]
fn this_process_is_shown() {
    let pid = std::process::id() as i32;
    let table = table(&Format::parse("-eo pid,etimes,rss,user,args").unwrap(), &[pid, i32::MAX]);
    assert_eq!(table.rows.len(), 1, "a process that does not exist is left out");
    assert_eq!(table.rows[0][0], pid.to_string());
    assert!(table.rows[0][4].contains("rorqual_shim"), "{:?}", table.rows);
}
