//! Generates the server half of Bigtable's four gRPC services, and the client half
//! of that which has messages of our own.
//!
//! The message crates carry only clients, of their own messages, and protoc is no
//! part of this build, so the services are described here as a table of RPC names: the request of
//! `Foo` is `FooRequest` and its answer `FooResponse` unless the row says
//! otherwise. An RPC that no role implements answers UNIMPLEMENTED with a
//! sentence that names it, and for those that are not to come says what to use instead.

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
    both_ways: bool,
    instead: &'static str,
}

const EMPTY: &str = "super::Empty";
const OPERATION: &str = "crate::longrunning::Operation";

const fn unary(name: &'static str) -> Rpc {
    Rpc { name, request: None, answer: None, streaming: false, both_ways: false, instead: "" }
}

const fn streaming(name: &'static str) -> Rpc {
    Rpc { name, request: None, answer: None, streaming: true, both_ways: false, instead: "" }
}

/// A call that streams both ways, of messages that the message crates do not have.
const fn session(name: &'static str) -> Rpc {
    Rpc { both_ways: true, ..streaming(name) }.takes(EMPTY).answers(EMPTY)
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

    /// Not to come: a sentence says what to use.
    const fn instead(mut self, sentence: &'static str) -> Self {
        self.instead = sentence;
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
        let method = if self.both_ways { method.client_streaming() } else { method };
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
            named += &match rpc.instead {
                "" => format!("\"{} is not built in this version of Hayloft.\"", rpc.name),
                sentence => format!("\"{} is not part of Hayloft. {sentence}\"", rpc.name),
            };
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

const SQL: &str = "There is no SQL here: read with ReadRows and a filter.";
const SESSION: &str = "Sessions are not spoken here: send each request as a call of its own.";
const LOGICAL_VIEW: &str = "There is no SQL here: to share part of a table, use an authorized view.";
const MATERIALIZED_VIEW: &str =
    "There is no SQL here: keep what you would select in a table of its own, and write both.";
const SCHEMA_BUNDLE: &str =
    "Cells hold bytes, whatever their schema: keep the protobuf descriptors with the application.";
const SNAPSHOT: &str =
    "Snapshots gave way to backups in Google's service too: use CreateBackup and RestoreTable.";
const MEMORY_LAYER: &str =
    "Reads are served from the block cache of each tablet server: set its memory by rows.memory.";

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
        unary("PrepareQuery").instead(SQL),
        streaming("ExecuteQuery").instead(SQL),
        // Google's own clients only; the message crate does not have theirs.
        session("OpenTable").instead(SESSION),
        session("OpenAuthorizedView").instead(SESSION),
        session("OpenMaterializedView").instead(SESSION),
        unary("GetClientConfiguration").takes(EMPTY).answers(EMPTY).instead(SESSION),
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
        // The message crate does not have theirs; an empty one takes any request.
        unary("UpdateMemoryLayer").takes(EMPTY).answers(OPERATION).instead(MEMORY_LAYER),
        unary("ListMemoryLayers").takes(EMPTY).answers(EMPTY).instead(MEMORY_LAYER),
        unary("GetMemoryLayer").takes(EMPTY).answers(EMPTY).instead(MEMORY_LAYER),
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
        unary("CreateLogicalView").answers(OPERATION).instead(LOGICAL_VIEW),
        unary("GetLogicalView").answers("super::LogicalView").instead(LOGICAL_VIEW),
        unary("ListLogicalViews").instead(LOGICAL_VIEW),
        unary("UpdateLogicalView").answers(OPERATION).instead(LOGICAL_VIEW),
        unary("DeleteLogicalView").answers(EMPTY).instead(LOGICAL_VIEW),
        unary("CreateMaterializedView").answers(OPERATION).instead(MATERIALIZED_VIEW),
        unary("GetMaterializedView").answers("super::MaterializedView").instead(MATERIALIZED_VIEW),
        unary("ListMaterializedViews").instead(MATERIALIZED_VIEW),
        unary("UpdateMaterializedView").answers(OPERATION).instead(MATERIALIZED_VIEW),
        unary("DeleteMaterializedView").answers(EMPTY).instead(MATERIALIZED_VIEW),
    ],
};

const TABLE_ADMIN: Service = Service {
    package: "google.bigtable.admin.v2",
    name: "BigtableTableAdmin",
    rpcs: &[
        unary("CreateTable").answers("super::TableAnswer"),
        unary("CreateTableFromSnapshot").answers(OPERATION).instead(SNAPSHOT),
        unary("ListTables").answers("super::ListTablesAnswer"),
        unary("GetTable").answers("super::TableAnswer"),
        unary("UpdateTable").answers(OPERATION),
        unary("DeleteTable").answers(EMPTY),
        unary("UndeleteTable").answers(OPERATION),
        unary("CreateAuthorizedView").answers(OPERATION),
        unary("ListAuthorizedViews"),
        unary("GetAuthorizedView").answers("super::AuthorizedView"),
        unary("UpdateAuthorizedView").answers(OPERATION),
        unary("DeleteAuthorizedView").answers(EMPTY),
        unary("ModifyColumnFamilies").answers("super::TableAnswer"),
        unary("DropRowRange").answers(EMPTY),
        unary("GenerateConsistencyToken"),
        unary("CheckConsistency"),
        unary("SnapshotTable").answers(OPERATION).instead(SNAPSHOT),
        unary("GetSnapshot").answers("super::Snapshot").instead(SNAPSHOT),
        unary("ListSnapshots").instead(SNAPSHOT),
        unary("DeleteSnapshot").answers(EMPTY).instead(SNAPSHOT),
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
        unary("CreateSchemaBundle").answers(OPERATION).instead(SCHEMA_BUNDLE),
        unary("UpdateSchemaBundle").answers(OPERATION).instead(SCHEMA_BUNDLE),
        unary("GetSchemaBundle").answers("super::SchemaBundle").instead(SCHEMA_BUNDLE),
        unary("ListSchemaBundles").instead(SCHEMA_BUNDLE),
        unary("DeleteSchemaBundle").answers(EMPTY).instead(SCHEMA_BUNDLE),
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
