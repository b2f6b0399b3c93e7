//! Generates the server half of Bigtable's four gRPC services, and the client half
//! of that which has messages of our own.
//!
//! The message crates carry only clients, of their own messages, and protoc is no
//! part of this build, so the services are described here as a table of RPC names: the request of
//! `Foo` is `FooRequest` and its answer `FooResponse` unless the row says
//! otherwise. An RPC that no role implements answers UNIMPLEMENTED with a
//! sentence that names it.

use tonic_build::manual;

struct Service {
    package: &'static str,
    name: &'static str,
    rpcs: &'static [Rpc],
}

struct Rpc {
    name: &'static str,
    request: Option<&'static str>,
    answer: Option<&'static str>,
    streaming: bool,
}

const EMPTY: &str = "super::Empty";
const OPERATION: &str = "crate::longrunning::Operation";

const fn unary(name: &'static str) -> Rpc {
    Rpc { name, request: None, answer: None, streaming: false }
}

const fn streaming(name: &'static str) -> Rpc {
    Rpc { name, request: None, answer: None, streaming: true }
}

impl Rpc {
    const fn takes(mut self, request: &'static str) -> Self {
        self.request = Some(request);
        self
    }

    const fn answers(mut self, answer: &'static str) -> Self {
        self.answer = Some(answer);
        self
    }

    fn describe(&self) -> manual::Method {
        let or = |given: Option<&str>, suffix: &str| match given {
            Some(path) => path.to_owned(),
            None => format!("super::{}{suffix}", self.name),
        };
        let method = manual::Method::builder()
            .name(snake_case(self.name))
            .route_name(self.name)
            .input_type(or(self.request, "Request"))
            .output_type(or(self.answer, "Response"))
            .codec_path("tonic_prost::ProstCodec");
        if self.streaming { method.server_streaming().build() } else { method.build() }
    }
}

impl Service {
    fn describe(&self) -> manual::Service {
        let mut service = manual::Service::builder().package(self.package).name(self.name);
        for rpc in self.rpcs {
            service = service.method(rpc.describe());
        }
        service.build()
    }

    /// The service's server module as Rust source.
    fn generate(&self) -> String {
        const STUB: &str = "\"Not yet implemented\"";
        let source = tonic_build::CodeGenBuilder::new()
            .emit_package(true)
            .generate_default_stubs(true)
            .generate_server(&self.describe(), "")
            .to_string();
        // tonic writes one stub an RPC, in the table's order, all with the same words.
        let mut pieces = source.split(STUB);
        let mut named = pieces.next().unwrap_or_default().to_owned();
        let mut stubs = 0;
        for (rpc, piece) in self.rpcs.iter().zip(pieces) {
            named += &format!("\"{} is not built in this version of Hayloft.\"", rpc.name);
            named += piece;
            stubs += 1;
        }
        assert_eq!(stubs, self.rpcs.len(), "tonic no longer writes one stub an RPC");
        named
    }

    /// The service's client module as Rust source.
    fn generate_client(&self) -> String {
        tonic_build::CodeGenBuilder::new()
            .emit_package(true)
            .build_transport(false)
            .generate_client(&self.describe(), "")
            .to_string()
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out_dir = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for service in [&BIGTABLE, &INSTANCE_ADMIN, &TABLE_ADMIN, &OPERATIONS] {
        let file = out_dir.join(format!("{}.rs", service.name));
        std::fs::write(&file, service.generate()).expect("OUT_DIR is writable");
    }
    std::fs::write(out_dir.join("BigtableClient.rs"), BIGTABLE.generate_client())
        .expect("OUT_DIR is writable");
}

const BIGTABLE: Service = Service {
    package: "google.bigtable.v2",
    name: "Bigtable",
    rpcs: &[
        streaming("ReadRows"),
        streaming("SampleRowKeys"),
        unary("MutateRow"),
        streaming("MutateRows"),
        unary("CheckAndMutateRow"),
        unary("PingAndWarm"),
        unary("ReadModifyWriteRow"),
        streaming("GenerateInitialChangeStreamPartitions"),
        streaming("ReadChangeStream"),
        unary("PrepareQuery"),
        streaming("ExecuteQuery"),
    ],
};

const INSTANCE_ADMIN: Service = Service {
    package: "google.bigtable.admin.v2",
    name: "BigtableInstanceAdmin",
    rpcs: &[
        unary("CreateInstance").answers(OPERATION),
        unary("GetInstance").answers("super::Instance"),
        unary("ListInstances"),
        unary("UpdateInstance").takes("super::Instance").answers("super::Instance"),
        unary("PartialUpdateInstance").answers(OPERATION),
        unary("DeleteInstance").answers(EMPTY),
        unary("CreateCluster").answers(OPERATION),
        unary("GetCluster").answers("super::Cluster"),
        unary("ListClusters"),
        unary("UpdateCluster").takes("super::Cluster").answers(OPERATION),
        unary("PartialUpdateCluster").answers(OPERATION),
        unary("DeleteCluster").answers(EMPTY),
        unary("CreateAppProfile").answers("super::AppProfile"),
        unary("GetAppProfile").answers("super::AppProfile"),
        unary("ListAppProfiles"),
        unary("UpdateAppProfile").answers(OPERATION),
        unary("DeleteAppProfile").answers(EMPTY),
        unary("GetIamPolicy").takes("crate::iam::GetIamPolicyRequest").answers("crate::iam::Policy"),
        unary("SetIamPolicy").takes("crate::iam::SetIamPolicyRequest").answers("crate::iam::Policy"),
        unary("TestIamPermissions")
            .takes("crate::iam::TestIamPermissionsRequest")
            .answers("crate::iam::TestIamPermissionsResponse"),
        unary("ListHotTablets"),
        unary("CreateLogicalView").answers(OPERATION),
        unary("GetLogicalView").answers("super::LogicalView"),
        unary("ListLogicalViews"),
        unary("UpdateLogicalView").answers(OPERATION),
        unary("DeleteLogicalView").answers(EMPTY),
        unary("CreateMaterializedView").answers(OPERATION),
        unary("GetMaterializedView").answers("super::MaterializedView"),
        unary("ListMaterializedViews"),
        unary("UpdateMaterializedView").answers(OPERATION),
        unary("DeleteMaterializedView").answers(EMPTY),
    ],
};

const TABLE_ADMIN: Service = Service {
    package: "google.bigtable.admin.v2",
    name: "BigtableTableAdmin",
    rpcs: &[
        unary("CreateTable").answers("super::Table"),
        unary("CreateTableFromSnapshot").answers(OPERATION),
        unary("ListTables"),
        unary("GetTable").answers("super::Table"),
        unary("UpdateTable").answers(OPERATION),
        unary("DeleteTable").answers(EMPTY),
        unary("UndeleteTable").answers(OPERATION),
        unary("CreateAuthorizedView").answers(OPERATION),
        unary("ListAuthorizedViews"),
        unary("GetAuthorizedView").answers("super::AuthorizedView"),
        unary("UpdateAuthorizedView").answers(OPERATION),
        unary("DeleteAuthorizedView").answers(EMPTY),
        unary("ModifyColumnFamilies").answers("super::Table"),
        unary("DropRowRange").answers(EMPTY),
        unary("GenerateConsistencyToken"),
        unary("CheckConsistency"),
        unary("SnapshotTable").answers(OPERATION),
        unary("GetSnapshot").answers("super::Snapshot"),
        unary("ListSnapshots"),
        unary("DeleteSnapshot").answers(EMPTY),
        unary("CreateBackup").answers(OPERATION),
        unary("GetBackup").answers("super::Backup"),
        unary("UpdateBackup").answers("super::Backup"),
        unary("DeleteBackup").answers(EMPTY),
        unary("ListBackups"),
        unary("RestoreTable").answers(OPERATION),
        unary("CopyBackup").answers(OPERATION),
        unary("GetIamPolicy").takes("crate::iam::GetIamPolicyRequest").answers("crate::iam::Policy"),
        unary("SetIamPolicy").takes("crate::iam::SetIamPolicyRequest").answers("crate::iam::Policy"),
        unary("TestIamPermissions")
            .takes("crate::iam::TestIamPermissionsRequest")
            .answers("crate::iam::TestIamPermissionsResponse"),
        unary("CreateSchemaBundle").answers(OPERATION),
        unary("UpdateSchemaBundle").answers(OPERATION),
        unary("GetSchemaBundle").answers("super::SchemaBundle"),
        unary("ListSchemaBundles"),
        unary("DeleteSchemaBundle").answers(EMPTY),
    ],
};

const OPERATIONS: Service = Service {
    package: "google.longrunning",
    name: "Operations",
    rpcs: &[
        unary("ListOperations"),
        unary("GetOperation").answers("super::Operation"),
        unary("DeleteOperation").answers(EMPTY),
        unary("CancelOperation").answers(EMPTY),
        unary("WaitOperation").answers("super::Operation"),
    ],
};
