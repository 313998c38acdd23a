//! The firewall by nf_tables netlink.
