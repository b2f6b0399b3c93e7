// Google's Bigtable client for Node, as its documentation uses it.
// BIGTABLE_EMULATOR_HOST says where; tests/e2e/test_bigtable_node.py runs it.

import assert from 'node:assert/strict';
import test, {after, before} from 'node:test';
import {Bigtable} from '@google-cloud/bigtable';

const bigtable = new Bigtable({projectId: 'barn'});
const instance = bigtable.instance('loft');
const table = instance.table('node-crops');

const ids = rows => rows.map(row => row.id);

/** Every row of a read, by the client's stream. */
async function streamed(options) {
  const rows = [];
  for await (const row of table.createReadStream(options)) rows.push(row);
  return rows;
}

before(async () => {
  // `plain` has neither rule nor type: protobuf.js wants it written all the same.
  await table.create({families: ['plain', {name: 'last', rule: {versions: 1}}], splits: [Buffer.from('m')]});
  await table.insert([
    {key: 'east', data: {plain: {crop: 'oats', acres: 7}}},
    {key: 'north', data: {plain: {crop: 'rye'}}},
    {key: 'west', data: {plain: {crop: {value: 'barley', timestamp: 5_000}}}},
  ]);
});

after(() => table.delete());

test('rows come back as they were inserted', async () => {
  const [rows] = await table.getRows();
  assert.deepEqual(ids(rows), ['east', 'north', 'west']);
  assert.equal(rows[0].data.plain.crop[0].value, 'oats');
  assert.equal(rows[0].data.plain.acres[0].value, 7);
  assert.equal(rows[2].data.plain.crop[0].timestamp, '5000');
});

test('a row is saved, read, counted, appended to and deleted', async () => {
  const row = table.row('south');
  await row.save({plain: {crop: 'spelt', acres: 1}});
  await row.increment('plain:acres', 4);
  await row.createRules([{column: 'plain:crop', append: ' and rye'}]);
  const [read] = await row.get();
  assert.equal(read.data.plain.crop[0].value, 'spelt and rye');
  assert.equal(read.data.plain.acres[0].value, 5);
  const [column] = await row.get(['plain:crop']);
  assert.equal(column.plain.crop[0].value, 'spelt and rye');
  await row.deleteCells(['plain:crop']);
  assert.deepEqual(Object.keys((await row.get())[0].data.plain), ['acres']);
  await row.delete();
  assert.deepEqual(await row.exists(), [false]);
  await assert.rejects(row.get(), /Unknown row: south/);
});

test('a condition chooses what is written', async () => {
  const row = table.row('gate');
  await row.save({plain: {open: 'yes'}});
  const shut = [{method: 'insert', data: {plain: {open: 'no'}}}];
  const filter = [{column: 'open'}, {value: 'yes'}, {column: {cellLimit: 1}}];
  assert.equal((await row.filter(filter, {onMatch: shut}))[0], true);
  assert.equal((await row.filter([{column: 'shut'}], {onNoMatch: shut}))[0], false);
  await row.delete();
});

test('ranges, prefixes, limits and filters choose rows', async () => {
  assert.deepEqual(ids(await streamed({start: 'f'})), ['north', 'west']);
  assert.deepEqual(ids(await streamed({start: 'east', end: 'north'})), ['east', 'north']);
  assert.deepEqual(ids(await streamed({prefix: 'no'})), ['north']);
  assert.deepEqual(ids(await streamed({keys: ['west', 'none', 'east']})), ['east', 'west']);
  assert.deepEqual(ids(await streamed({limit: 1})), ['east']);
  assert.deepEqual(ids(await streamed({filter: [{column: 'acres'}]})), ['east']);
  assert.deepEqual(ids(await streamed({filter: [{value: /^(rye|barley)$/}]})), ['north', 'west']);
  const either = [{interleave: [[{column: 'acres'}], [{row: 'west'}]]}];
  assert.deepEqual(ids(await streamed({filter: either})), ['east', 'west']);
});

test('of a batch the entries that fail are named', async () => {
  const entries = [
    {key: 'good', data: {plain: {crop: 'flax'}}},
    {key: 'bad', data: {nowhere: {crop: 'flax'}}},
  ];
  await assert.rejects(table.insert(entries), error => {
    assert.equal(error.name, 'PartialFailureError');
    assert.equal(error.errors.length, 1);
    assert.equal(error.errors[0].entry.key, 'bad');
    assert.match(error.errors[0].message, /nowhere/);
    return true;
  });
  await table.row('good').delete();
});

test('five thousand rows and one of twenty megabytes', async () => {
  const rows = Array.from({length: 5_000}, (_, i) => ({
    key: `many#${String(i).padStart(5, '0')}`,
    data: {last: {value: `value ${i}`}},
  }));
  await table.insert(rows);
  assert.deepEqual(ids(await streamed({prefix: 'many#'})), rows.map(row => row.key));
  const large = Buffer.alloc(20_000_000, 'x');
  await table.insert({key: 'large', data: {last: {value: large}}});
  const [row] = await table.row('large').get([], {decode: false});
  assert.ok(large.equals(row.data.last.value[0].value));
  await table.deleteRows('many#');
  await table.row('large').delete();
});

test('samples of keys end with the end of the table', async () => {
  const [samples] = await table.sampleRowKeys();
  assert.equal(String(samples[0].key), 'm');
  assert.equal(String(samples.at(-1).key), '');
});

test('tables and families are listed, made, changed and dropped', async () => {
  assert.ok(ids((await instance.getTables())[0]).includes('node-crops'));
  assert.deepEqual(ids((await table.getFamilies())[0]).sort(), ['last', 'plain']);
  const rule = {age: {seconds: 100, nanos: 0}, versions: 2, union: true};
  const [more] = await table.createFamily('more', {rule});
  assert.equal((await more.getMetadata())[0].gcRule.union.rules.length, 2);
  await more.setMetadata({rule: {versions: 3}});
  assert.equal((await more.getMetadata())[0].gcRule.maxNumVersions, 3);
  await more.delete();
  assert.equal((await table.family('more').exists())[0], false);
  assert.equal((await instance.table('node-none').exists())[0], false);
});

test('instances, app profiles, backups and policies', async () => {
  const [farm, creation] = await bigtable.createInstance('node-farm', {
    clusters: [{id: 'node-farm-c1', location: 'us-east1-b', nodes: 1}],
  });
  await creation.promise();
  const [profile] = await farm.createAppProfile('any', {routing: 'any', allowTransactionalWrites: false});
  assert.equal((await profile.exists())[0], true);
  const cluster = farm.cluster('node-farm-c1');
  const fields = farm.table('fields');
  await fields.create({families: ['f']});
  await fields.insert({key: 'r', data: {f: {c: 'v'}}});
  const expireTime = new Date(Date.now() + 7 * 86_400_000);
  const [backup, saving] = await cluster.createBackup('spring', {table: fields, expireTime});
  await saving.promise();
  await fields.delete();
  const [restored, restoring] = await backup.restore('fields-again');
  await restoring.promise();
  assert.deepEqual(ids((await restored.getRows())[0]), ['r']);
  assert.deepEqual((await restored.testIamPermissions(['bigtable.tables.get']))[0], ['bigtable.tables.get']);
  await backup.delete();
  await restored.delete();
  await farm.delete();
});
