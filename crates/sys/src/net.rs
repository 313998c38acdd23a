//! Links, addresses and routes by rtnetlink.
