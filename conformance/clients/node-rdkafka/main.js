// node-rdkafka: librdkafka from Node.js.
const kafka = require('node-rdkafka')
const zoo = require('../zoo')

const SETTINGS = { 'metadata.broker.list': zoo.BOOTSTRAP, 'socket.timeout.ms': 15000 }
const TIMEOUT_MS = 15000

const connected = (client) => zoo.call((done) => client.connect({ timeout: TIMEOUT_MS }, done)).then(() => client)

const using = async (client, run) => {
  await connected(client)
  try {
    return await run(client)
  } finally {
    await new Promise((resolve) => client.disconnect(resolve))
  }
}

const produce = (topic, codec, records, settings) =>
  using(new kafka.Producer({ ...SETTINGS, dr_cb: true, 'compression.codec': codec, 'linger.ms': 50, 'message.timeout.ms': TIMEOUT_MS, ...settings }), async (producer) => {
    producer.setPollInterval(10)
    const offsets = []
    await new Promise((resolve, reject) => {
      producer.on('delivery-report', (error, report) => {
        if (error) reject(error)
        if (offsets.push(report.offset) === records.length) resolve()
      })
      for (const r of records) {
        producer.produce(topic, 0, r.value, r.key, r.timestamp, null, r.headers.map(([name, v]) => ({ [name]: v })))
      }
    })
    zoo.equal(offsets, records.map((_, i) => i))
  })

const newConsumer = (group) =>
  new kafka.KafkaConsumer(
    { ...SETTINGS, 'group.id': group, 'enable.auto.commit': false, 'fetch.wait.max.ms': 50, 'session.timeout.ms': 10000, 'heartbeat.interval.ms': 1000 },
    { 'auto.offset.reset': 'earliest' },
  )

const record = (m) => ({
  key: m.key,
  value: m.value,
  timestamp: m.timestamp,
  headers: (m.headers || []).flatMap((h) => Object.entries(h).map(([name, v]) => [name, Buffer.from(v)])),
})

const take = async (consumer, records, count) => {
  while (records.length < count) {
    for (const m of await zoo.call((done) => consumer.consume(count - records.length, done))) records.push(record(m))
  }
  return records
}

const watermarks = (consumer, topic) =>
  zoo.call((done) => consumer.queryWatermarkOffsets(topic, 0, TIMEOUT_MS, done)).then((w) => [w.lowOffset, w.highOffset])

// One consumer for all topics: to start one takes longer than to read one.
let reader
const read = async (topic) => {
  reader = reader || connected(newConsumer('zoo-without-a-group'))
  const consumer = await reader
  consumer.setDefaultConsumeTimeout(100)
  const [, end] = await watermarks(consumer, topic)
  consumer.assign([{ topic, partition: 0, offset: 0 }])
  const records = await take(consumer, [], end)
  consumer.unassign()
  return records
}

const group = (topic, groupId, count, commit) =>
  using(newConsumer(groupId), async (consumer) => {
    consumer.setDefaultConsumeTimeout(100)
    consumer.subscribe([topic])
    const records = await take(consumer, [], count)
    zoo.equal(consumer.assignments().map((a) => [a.topic, a.partition]), [[topic, 0]])
    if (commit !== undefined) {
      consumer.commitSync([{ topic, partition: 0, offset: commit }])
      const [committed] = await zoo.call((done) => consumer.committed([{ topic, partition: 0 }], TIMEOUT_MS, done))
      zoo.equal(committed.offset, commit)
    }
    return records
  })

zoo.run({
  produce: (topic, codec, records) => produce(topic, codec, records, {}),
  idempotent: (topic, records) => produce(topic, 'none', records, { 'enable.idempotence': true }),
  read,
  group,
  bounds: (topic) => using(newConsumer('zoo-without-a-group'), (c) => watermarks(c, topic)),
  offsetAt: (topic, ms) =>
    using(newConsumer('zoo-without-a-group'), async (c) => {
      const [p] = await zoo.call((done) => c.offsetsForTimes([{ topic, partition: 0, offset: ms }], TIMEOUT_MS, done))
      return p.offset >= 0 ? p.offset : null
    }),
  topics: () =>
    using(new kafka.Producer(SETTINGS), async (p) =>
      (await zoo.call((done) => p.getMetadata({ timeout: TIMEOUT_MS }, done))).topics.map((t) => t.name)),
  admin: function* ({ created }) {
    const admin = kafka.AdminClient.create(SETTINGS)
    const topic = { topic: created, num_partitions: 2, replication_factor: 1, config: { 'retention.ms': '123456000' } }
    yield ['admin-create-topic', () => zoo.call((done) => admin.createTopic(topic, TIMEOUT_MS, done))]
    yield ['admin-create-partitions', () => zoo.call((done) => admin.createPartitions(created, 3, TIMEOUT_MS, done))]
    yield ['admin-delete-topic', () => zoo.call((done) => admin.deleteTopic(created, TIMEOUT_MS, done))]
  },
})
