//! A tablet server, a master and clients over one directory.

use std::path::Path;
use std::sync::Arc;

use cluster::ServerId;
use cluster::lock_service::LockService;
use cluster::lock_service::embedded::EmbeddedLockService;
use master::instance_admin::InstanceAdmin;
use master::metadata_writer::MetadataWriter;
use master::operations::OperationsService;
use master::{Master, MasterOptions};
use row_api::admin;
use row_api::client::{RowClient, in_process};
use row_api::data::mutation::{Mutation as Kind, SetCell};
use row_api::data::{Mutation, ReadRowsRequest};
use row_api::longrunning::operations_server::Operations;
use row_api::longrunning::{GetOperationRequest, Operation};
use row_api::names::TableName;
use row_api::row::Row;
use tablet_server::control::{TabletControl, TabletStats};
use tablet_server::gateway::{Caller, Locator, Router, RowService};
use tablet_server::{Catalog, Fleet, FleetOptions, Servers, TabletServer, TabletServerOptions, system_clock};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use vfs::{FileSystem, RealFileSystem};

pub const INSTANCE: &str = "projects/p/instances/i";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub struct Stack {
    /// Calls as anybody does.
    pub client: RowClient,
    /// Calls as a role of this process does.
    pub role: RowClient,
    /// The first of the servers.
    pub server: Arc<TabletServer>,
    pub fleet: Arc<Fleet>,
    pub master: Arc<Master>,
    pub servers: Arc<Servers>,
    pub router: Arc<Router>,
    pub metadata: MetadataWriter,
    pub lock_service: Arc<dyn LockService>,
}

impl Stack {
    pub async fn open(dir: &Path) -> Self {
        Self::open_on(Arc::new(RealFileSystem), dir, |_| {}).await.unwrap()
    }

    pub async fn open_on(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        adjust: impl FnOnce(&mut TabletServerOptions),
    ) -> Result<Self, BoxError> {
        Self::open_fleet(fs, dir, 1, adjust, MasterOptions::default()).await
    }

    pub async fn open_fleet(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        server_count: usize,
        adjust: impl FnOnce(&mut TabletServerOptions),
        master_options: MasterOptions,
    ) -> Result<Self, BoxError> {
        fs.create_dir_all(dir)?;
        let lock_service: Arc<dyn LockService> =
            Arc::new(EmbeddedLockService::open(Arc::clone(&fs), &dir.join("lock"))?);
        let catalog = Arc::new(Catalog::new());
        let mut options = FleetOptions::new(dir.to_owned(), server_count);
        adjust(&mut options.each);
        let locks = Arc::clone(&lock_service);
        let fleet = Fleet::open(options, fs, locks, Arc::clone(&catalog), system_clock()).await?;
        let servers = Arc::clone(fleet.directory());
        let locator = Locator::new(Arc::clone(&lock_service), Arc::clone(&servers), &catalog);
        let router = Arc::new(Router::new(locator, catalog));
        let master = Master::start(
            Arc::clone(&lock_service),
            Arc::clone(&servers),
            Arc::clone(&router),
            Arc::clone(&fleet) as _,
            master_options,
        )
        .await?;
        let client = |caller| {
            let rows = RowService::new(Arc::clone(&router), system_clock(), caller);
            let routes = master::add_services(Routes::new(rows.into_server()), &master, caller);
            RowClient::new(in_process(routes))
        };
        Ok(Self {
            client: client(Caller::Public),
            role: client(Caller::Role),
            server: Arc::clone(&fleet.servers()[0]),
            fleet,
            master,
            servers,
            metadata: MetadataWriter::new(Arc::clone(&router)),
            router,
            lock_service,
        })
    }

    pub async fn close(self) {
        self.fleet.close().await.unwrap();
    }

    /// The figures of all tablets that are served, with their servers.
    pub fn served(&self) -> Vec<(ServerId, TabletStats)> {
        let stats = |server: &Arc<TabletServer>| {
            let id = server.id().clone();
            server.stats().into_iter().map(move |stats| (id.clone(), stats)).collect::<Vec<_>>()
        };
        self.fleet.servers().iter().flat_map(stats).collect()
    }

    /// The instance admin service, as anybody calls it.
    pub fn instance_admin(&self) -> InstanceAdmin {
        InstanceAdmin::new(Arc::clone(&self.master), Caller::Public)
    }

    /// The service of long-running operations.
    pub fn operations(&self) -> OperationsService {
        OperationsService::new(Arc::clone(&self.master))
    }

    pub async fn operation(&self, name: &str) -> Result<Operation, Status> {
        let request = GetOperationRequest { name: name.to_owned() };
        self.operations().get_operation(Request::new(request)).await.map(Response::into_inner)
    }

    pub async fn create(&self, table: &str, splits: &[&str]) -> TableName {
        self.try_create(table, splits).await.unwrap()
    }

    /// Creates a table with the families `f` and `g`.
    pub async fn try_create(&self, table: &str, splits: &[&str]) -> Result<TableName, Status> {
        self.try_create_in(INSTANCE, table, splits).await
    }

    pub async fn try_create_in(
        &self,
        instance: &str,
        table: &str,
        splits: &[&str],
    ) -> Result<TableName, Status> {
        let split = |key: &&str| admin::create_table_request::Split { key: key.as_bytes().to_vec().into() };
        let families = ["f", "g"].map(|name| (name.to_owned(), admin::ColumnFamily::default()));
        let request = admin::CreateTableRequest {
            parent: instance.to_owned(),
            table_id: table.to_owned(),
            table: Some(admin::Table { column_families: families.into(), ..admin::Table::default() }),
            initial_splits: splits.iter().map(split).collect(),
        };
        let created = self.client.table_admin().create_table(request).await?.into_inner();
        assert_eq!(created.name, format!("{instance}/tables/{table}"));
        Ok(TableName::parse("name", &created.name).unwrap())
    }

    pub async fn put(&self, table: &TableName, row: &str, value: &str) {
        self.client.mutate_row(table, row.as_bytes(), vec![set("f", "q", value)]).await.unwrap();
    }

    pub async fn value(&self, table: &TableName, row: &str) -> Option<String> {
        let row = self.client.read_row(table, row.as_bytes()).await.unwrap()?;
        row.cell("f", b"q").map(|cell| String::from_utf8(cell.value.to_vec()).unwrap())
    }

    /// The keys of all rows of `table`.
    pub async fn keys(&self, table: &TableName) -> Vec<String> {
        self.keys_of(ReadRowsRequest { table_name: table.to_string(), ..ReadRowsRequest::default() }).await
    }

    pub async fn keys_of(&self, request: ReadRowsRequest) -> Vec<String> {
        let rows = self.rows(request).await.unwrap();
        rows.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
    }

    pub async fn rows(&self, request: ReadRowsRequest) -> Result<Vec<Row>, Status> {
        let mut stream = self.client.read_rows(request).await?;
        let mut rows = Vec::new();
        while let Some(row) = stream.next().await? {
            rows.push(row);
        }
        Ok(rows)
    }

    /// Where the tablets of `table` end.
    pub async fn boundaries(&self, table: &TableName) -> Vec<String> {
        let request = row_api::data::SampleRowKeysRequest {
            table_name: table.to_string(),
            ..row_api::data::SampleRowKeysRequest::default()
        };
        let mut stream = self.client.data().sample_row_keys(request).await.unwrap().into_inner();
        let mut boundaries = Vec::new();
        let mut offset_bytes = 0;
        while let Some(sample) = stream.message().await.unwrap() {
            assert!(sample.offset_bytes >= offset_bytes);
            offset_bytes = sample.offset_bytes;
            boundaries.push(String::from_utf8(sample.row_key.to_vec()).unwrap());
        }
        boundaries
    }
}

pub fn name(table: &str) -> TableName {
    TableName::parse("name", &format!("{INSTANCE}/tables/{table}")).unwrap()
}

pub fn set(family: &str, qualifier: &str, value: &str) -> Mutation {
    let cell = SetCell {
        family_name: family.to_owned(),
        column_qualifier: qualifier.as_bytes().to_vec().into(),
        timestamp_micros: 1_000,
        value: value.as_bytes().to_vec().into(),
    };
    Mutation::from(Kind::SetCell(cell))
}
