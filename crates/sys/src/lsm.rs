//! AppArmor and SELinux labels.
