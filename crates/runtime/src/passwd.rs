//! The container's own `/etc/passwd` and `/etc/group`. Their content belongs to the image: never trusted, always bounded.

/// LIMIT: of each file only this much is read; the largest real ones are a few hundred KiB.
pub(crate) const MAX_FILE: u64 = 4 << 20;
/// LIMIT: ids above have a sign bit in old interfaces; Docker refuses them as well.
const MAX_ID: u64 = (1 << 31) - 1;

/// Who a program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    pub home: Option<String>,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(text: &str) -> impl Iterator<Item = User<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or("");
        Some(User { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Group { name, gid: gid.parse().ok()?, members: fields.next().unwrap_or("") })
    })
}

/// Looks up `user[:group]` and further groups as Docker does.
pub(crate) fn look_up(
    wanted: &str,
    extra: &[String],
    passwd: &str,
    group_file: &str,
) -> Result<Identity, String> {
    let (user, group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let mut identity = Identity::default();
    let number = numeric(user)?;
    let default = if user.is_empty() { Some(0) } else { number };
    let found = users(passwd)
        .find(|entry| (!user.is_empty() && entry.name == user) || Some(entry.uid) == default);
    let mut name = None;
    match (&found, default) {
        (Some(entry), _) => {
            identity.uid = entry.uid;
            identity.gid = entry.gid;
            identity.home = Some(entry.home.to_owned()).filter(|home| !home.is_empty());
            name = Some(entry.name);
        }
        (None, Some(uid)) => identity.uid = uid,
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    }
    let mut supplementary = Vec::new();
    if group.is_empty() {
        if let Some(name) = name {
            let member = |entry: &Group<'_>| entry.members.split(',').any(|m| m == name);
            supplementary.extend(groups(group_file).filter(member).map(|entry| entry.gid));
        }
    } else {
        identity.gid = group_id(group, group_file)?;
    }
    for group in extra {
        supplementary.push(group_id(group, group_file)?);
    }
    identity.groups.push(identity.gid);
    for gid in supplementary {
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    Ok(identity)
}

fn group_id(wanted: &str, group_file: &str) -> Result<u32, String> {
    let number = numeric(wanted)?;
    groups(group_file)
        .find(|entry| entry.name == wanted || Some(entry.gid) == number)
        .map(|entry| entry.gid)
        .or(number)
        .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))
}

/// Reads a decimal id; `None` when the text is a name.
fn numeric(text: &str) -> Result<Option<u32>, String> {
    match text.parse::<u64>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id as u32)),
        Ok(_) => Err(format!("uids and gids must be in range 0-{MAX_ID}")),
        Err(_) => Ok(None),
    }
}

/// Finds the home directory of an id.
pub(crate) fn home_of(uid: u32, passwd: &str) -> Option<String> {
    users(passwd)
        .find(|entry| entry.uid == uid)
        .map(|entry| entry.home.to_owned())
        .filter(|home| !home.is_empty())
}

#[cfg(test)]
mod tests;
