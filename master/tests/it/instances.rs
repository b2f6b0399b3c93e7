use prost::Message;
use row_api::admin;
use row_api::admin::app_profile::{MultiClusterRoutingUseAny, RoutingPolicy, SingleClusterRouting};
use row_api::admin::bigtable_instance_admin_server::BigtableInstanceAdmin;
use row_api::data::{PingAndWarmRequest, ReadRowsRequest, read_modify_write_rule};
use row_api::longrunning::operation::Result as Outcome;
use row_api::names::TableName;
use tonic::{Code, Request, Response, Status};

use crate::stack::{INSTANCE, Stack, set};
use crate::tables::code;

const CREATED: &str = "projects/p/instances/created-one";

fn request(id: &str, clusters: &[&str]) -> admin::CreateInstanceRequest {
    let cluster = |zone: &&str| {
        let location = format!("projects/p/locations/{zone}");
        (format!("cluster-{zone}"), admin::Cluster { location, serve_nodes: 1, ..admin::Cluster::default() })
    };
    admin::CreateInstanceRequest {
        parent: "projects/p".to_owned(),
        instance_id: id.to_owned(),
        instance: Some(admin::Instance { display_name: "Created".to_owned(), ..admin::Instance::default() }),
        clusters: clusters.iter().map(cluster).collect(),
    }
}

impl Stack {
    async fn create_instance(&self, id: &str, clusters: &[&str]) -> Result<admin::Instance, Status> {
        let operation =
            self.instance_admin().create_instance(Request::new(request(id, clusters))).await?.into_inner();
        assert_eq!(self.operation(&operation.name).await.unwrap(), operation);
        let Some(Outcome::Response(response)) = operation.result else { panic!("it is done") };
        assert_eq!(response.type_url, "type.googleapis.com/google.bigtable.admin.v2.Instance");
        Ok(admin::Instance::decode(&response.value[..]).unwrap())
    }

    async fn instance(&self, name: &str) -> Result<admin::Instance, Status> {
        let request = admin::GetInstanceRequest { name: name.to_owned() };
        self.instance_admin().get_instance(Request::new(request)).await.map(Response::into_inner)
    }

    async fn instances(&self, parent: &str) -> Result<Vec<String>, Status> {
        let request = admin::ListInstancesRequest {
            parent: parent.to_owned(),
            ..admin::ListInstancesRequest::default()
        };
        let answer = self.instance_admin().list_instances(Request::new(request)).await?.into_inner();
        Ok(answer.instances.into_iter().map(|instance| instance.name).collect())
    }

    async fn delete_instance(&self, name: &str) -> Result<(), Status> {
        let request = admin::DeleteInstanceRequest { name: name.to_owned() };
        self.instance_admin().delete_instance(Request::new(request)).await.map(drop)
    }

    async fn create_profile(&self, instance: &str, id: &str, routing: RoutingPolicy) -> Result<(), Status> {
        let request = admin::CreateAppProfileRequest {
            parent: instance.to_owned(),
            app_profile_id: id.to_owned(),
            app_profile: Some(admin::AppProfile {
                routing_policy: Some(routing),
                ..admin::AppProfile::default()
            }),
            ignore_warnings: false,
        };
        self.instance_admin().create_app_profile(Request::new(request)).await.map(drop)
    }

    async fn profiles(&self, parent: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                admin::ListAppProfilesRequest { parent: parent.to_owned(), page_size: 1, page_token };
            let page = self.instance_admin().list_app_profiles(Request::new(request)).await.unwrap();
            names.extend(page.get_ref().app_profiles.iter().map(|profile| profile.name.clone()));
            page_token = page.into_inner().next_page_token;
            if page_token.is_empty() {
                return names;
            }
        }
    }

    async fn read_as(&self, table: &TableName, profile: &str) -> Code {
        let request = ReadRowsRequest {
            table_name: table.to_string(),
            app_profile_id: profile.to_owned(),
            ..ReadRowsRequest::default()
        };
        code(self.rows(request).await)
    }

    async fn increment_as(&self, table: &TableName, profile: &str) -> Code {
        let rule = row_api::data::ReadModifyWriteRule {
            family_name: "f".to_owned(),
            column_qualifier: "n".into(),
            rule: Some(read_modify_write_rule::Rule::IncrementAmount(1)),
        };
        let request = row_api::data::ReadModifyWriteRowRequest {
            table_name: table.to_string(),
            app_profile_id: profile.to_owned(),
            row_key: "r".into(),
            rules: vec![rule],
            ..row_api::data::ReadModifyWriteRowRequest::default()
        };
        code(self.client.data().read_modify_write_row(request).await)
    }

    async fn ping(&self, instance: &str, profile: &str) -> Code {
        let request = PingAndWarmRequest { name: instance.to_owned(), app_profile_id: profile.to_owned() };
        code(self.client.data().ping_and_warm(request).await)
    }
}

fn any() -> RoutingPolicy {
    RoutingPolicy::MultiClusterRoutingUseAny(MultiClusterRoutingUseAny::default())
}

fn single(cluster_id: &str, allow_transactional_writes: bool) -> RoutingPolicy {
    let cluster_id = cluster_id.to_owned();
    RoutingPolicy::SingleClusterRouting(SingleClusterRouting { cluster_id, allow_transactional_writes })
}

#[tokio::test]
async fn instances_that_nobody_created_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    stack.create("t", &[]).await;
    let instance = stack.instance("projects/p/instances/anything").await.unwrap();
    assert_eq!(instance.display_name, "anything");
    assert_eq!(stack.instances("projects/p").await.unwrap(), [INSTANCE]);
    assert_eq!(code(stack.instances("p").await), Code::InvalidArgument);
    assert_eq!(code(stack.create_instance("implicit", &["z"]).await), Code::Ok);
    stack.try_create_in("projects/p/instances/with-table", "t", &[]).await.unwrap();
    assert_eq!(code(stack.create_instance("with-table", &["z"]).await), Code::AlreadyExists);
    stack.close().await;
}

#[tokio::test]
async fn instances_keep_apart_and_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let created = stack.create_instance("created-one", &["y", "z"]).await.unwrap();
    assert!(created.create_time.is_some());
    stack.create_instance("created-two", &["z"]).await.unwrap();
    assert_eq!(code(stack.create_instance("created-one", &["z"]).await), Code::AlreadyExists);
    for instance in ["created-one", "created-two", "i"] {
        let instance = format!("projects/p/instances/{instance}");
        let table = stack.try_create_in(&instance, "t", &[]).await.unwrap();
        stack.put(&table, "r", &instance).await;
    }
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    assert_eq!(stack.instance(CREATED).await.unwrap(), created);
    let names = stack.instances("projects/p").await.unwrap();
    assert_eq!(names, [CREATED, "projects/p/instances/created-two", INSTANCE]);
    for instance in names {
        let table = TableName::parse("name", &format!("{instance}/tables/t")).unwrap();
        assert_eq!(stack.value(&table, "r").await, Some(instance));
    }
    let request = admin::GetTableRequest {
        name: format!("{CREATED}/tables/t"),
        view: admin::table::View::ReplicationView.into(),
    };
    let table = stack.client.table_admin().get_table(request).await.unwrap().into_inner();
    assert_eq!(table.cluster_states.into_keys().collect::<Vec<_>>(), ["cluster-y", "cluster-z"]);
    stack.close().await;
}

#[tokio::test]
async fn a_deleted_instance_takes_its_tables_along_and_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    stack.create_instance("created-one", &["z"]).await.unwrap();
    let table = stack.try_create_in(CREATED, "t", &["m"]).await.unwrap();
    stack.put(&table, "r", "old").await;
    let tablet_count = stack.server.stats().len();
    stack.delete_instance(CREATED).await.unwrap();
    assert_eq!(stack.server.stats().len(), tablet_count - 2);
    stack.delete_instance(INSTANCE).await.unwrap();
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    for gone in [CREATED, INSTANCE] {
        assert_eq!(code(stack.instance(gone).await), Code::NotFound);
        assert_eq!(code(stack.delete_instance(gone).await), Code::NotFound);
        assert_eq!(code(stack.try_create_in(gone, "t", &[]).await), Code::NotFound);
        assert_eq!(stack.ping(gone, "").await, Code::NotFound);
    }
    assert_eq!(stack.read_as(&table, "").await, Code::NotFound);
    assert!(stack.instances("projects/p").await.unwrap().is_empty());
    stack.create_instance("created-one", &["z"]).await.unwrap();
    assert_eq!(stack.ping(CREATED, "").await, Code::Ok);
    let table = stack.try_create_in(CREATED, "t", &[]).await.unwrap();
    assert_eq!(stack.value(&table, "r").await, None);
    stack.close().await;
}

#[tokio::test]
async fn a_protected_table_keeps_its_instance() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let request = admin::CreateTableRequest {
        parent: INSTANCE.to_owned(),
        table_id: "t".to_owned(),
        table: Some(admin::Table { deletion_protection: true, ..admin::Table::default() }),
        ..admin::CreateTableRequest::default()
    };
    stack.client.table_admin().create_table(request).await.unwrap();
    assert_eq!(code(stack.delete_instance(INSTANCE).await), Code::FailedPrecondition);
    assert_eq!(code(stack.instance(INSTANCE).await), Code::Ok);
    stack.close().await;
}

#[tokio::test]
async fn hayloft_s_own_instance_is_not_for_the_public() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    const SYSTEM: &str = "projects/hayloft/instances/system";
    assert_eq!(code(stack.delete_instance(SYSTEM).await), Code::PermissionDenied);
    let routed = stack.create_profile(SYSTEM, "a", any()).await;
    assert_eq!(code(routed), Code::PermissionDenied);
    assert_eq!(code(stack.instance(SYSTEM).await), Code::Ok);
    stack.close().await;
}

#[tokio::test]
async fn requests_under_an_app_profile_do_what_it_allows() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    stack.create_instance("created-one", &["y", "z"]).await.unwrap();
    let table = stack.try_create_in(CREATED, "t", &[]).await.unwrap();
    stack.create_profile(CREATED, "one", single("cluster-y", true)).await.unwrap();
    stack.create_profile(CREATED, "any", any()).await.unwrap();
    assert_eq!(code(stack.create_profile(CREATED, "any", any()).await), Code::AlreadyExists);
    assert_eq!(code(stack.create_profile(CREATED, "no", single("cluster-x", true)).await), Code::NotFound);
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    let names = ["any", "default", "one"].map(|id| format!("{CREATED}/appProfiles/{id}"));
    assert_eq!(stack.profiles(CREATED).await, names);
    assert_eq!(stack.profiles("projects/p/instances/-").await, names);
    for (profile, read, increment) in [
        ("one", Code::Ok, Code::Ok),
        ("any", Code::Ok, Code::FailedPrecondition),
        // Of two clusters, so it routes to any.
        ("", Code::Ok, Code::FailedPrecondition),
        ("unheard-of", Code::NotFound, Code::NotFound),
    ] {
        assert_eq!(stack.read_as(&table, profile).await, read, "{profile}");
        assert_eq!(stack.increment_as(&table, profile).await, increment, "{profile}");
        assert_eq!(stack.ping(CREATED, profile).await, read, "{profile}");
    }
    stack.close().await;
}

#[tokio::test]
async fn an_implicit_instance_takes_any_profile_until_it_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &[]).await;
    stack.client.mutate_row(&table, b"r", vec![set("f", "q", "v")]).await.unwrap();
    assert_eq!(stack.increment_as(&table, "whatever").await, Code::Ok);
    stack.create_profile(INSTANCE, "known", single("hayloft", false)).await.unwrap();
    assert_eq!(stack.read_as(&table, "whatever").await, Code::NotFound);
    assert_eq!(stack.read_as(&table, "known").await, Code::Ok);
    assert_eq!(stack.increment_as(&table, "known").await, Code::FailedPrecondition);
    assert_eq!(stack.increment_as(&table, "").await, Code::Ok);
    stack.close().await;
}

#[tokio::test]
async fn a_deletion_that_a_crash_cut_short_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path()).await;
    let table = stack.create("t", &["m"]).await;
    stack.put(&table, "r", "v").await;
    // What the first step of a deletion leaves.
    let record = master::instance_record::InstanceRecord {
        state: master::instance_record::InstanceState::Deleting.into(),
        ..master::instance_record::InstanceRecord::default()
    };
    let key = master::instance_record::key(&table.instance);
    let expect = cluster::lock_service::Expect::Absent;
    stack.lock_service.put(&key, record.encode_to_vec().into(), expect).await.unwrap();
    stack.close().await;
    let stack = Stack::open(dir.path()).await;
    assert_eq!(code(stack.instance(INSTANCE).await), Code::NotFound);
    assert_eq!(stack.read_as(&table, "").await, Code::NotFound);
    // METADATA's two tablets.
    assert_eq!(stack.server.stats().len(), 2);
    stack.close().await;
}
