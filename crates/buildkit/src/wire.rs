//! Names for the generated messages and services, so that the rest of the crate reads without their packages.

pub(crate) use bollard_buildkit_proto::fsutil::types::{Packet, Stat, packet::PacketType};
pub(crate) use bollard_buildkit_proto::google::protobuf::{Any, Timestamp};
pub(crate) use bollard_buildkit_proto::google::rpc::Status as RpcStatus;
pub(crate) use bollard_buildkit_proto::health;
pub(crate) use bollard_buildkit_proto::moby::buildkit::secrets::v1 as secrets;
pub(crate) use bollard_buildkit_proto::moby::buildkit::v1 as control;
pub(crate) use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
pub(crate) use bollard_buildkit_proto::moby::buildkit::v1::frontend as gateway;
pub(crate) use bollard_buildkit_proto::moby::buildkit::v1::types;
pub(crate) use bollard_buildkit_proto::moby::filesync::packet as dirsync;
pub(crate) use bollard_buildkit_proto::moby::filesync::v1 as filesync;
pub(crate) use bollard_buildkit_proto::moby::sshforward::v1 as ssh;
pub(crate) use bollard_buildkit_proto::moby::upload::v1 as upload;
pub(crate) use bollard_buildkit_proto::pb;
