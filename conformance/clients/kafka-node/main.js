// kafka-node: Produce v2 and, in groups, Fetch v2, whose messages have format 1;
// its plain consumer asks with Fetch v0 and sees no timestamps.
const kafka = require('kafka-node')
const zoo = require('../zoo')

const SETTINGS = { kafkaHost: zoo.BOOTSTRAP, connectTimeout: 10000, requestTimeout: 15000 }
const ATTRIBUTES = { none: 0, gzip: 1, snappy: 2 }

const record = (m) => ({ key: m.key, value: m.value, timestamp: null, headers: null })

const using = async (run) => {
  const client = new kafka.KafkaClient(SETTINGS)
  await new Promise((resolve, reject) => client.once('ready', resolve).once('error', reject))
  try {
    return await run(client)
  } finally {
    await zoo.call((done) => client.close(done))
  }
}

// created asks until the topic, which asking creates, has a leader.
const created = async (client, topic) => {
  for (;;) {
    const [, { metadata }] = await zoo.call((done) => client.loadMetadataForTopics([topic], done))
    if (metadata[topic] && metadata[topic][0] && metadata[topic][0].leader >= 0) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const produce = (topic, codec, records) =>
  using(async (client) => {
    await created(client, topic)
    const producer = new kafka.Producer(client, { requireAcks: -1, ackTimeoutMs: 10000 })
    const messages = records.map((r) => new kafka.KeyedMessage(r.key, r.value))
    const answer = await zoo.call((done) => producer.send([{ topic, partition: 0, attributes: ATTRIBUTES[codec], messages }], done))
    zoo.equal(answer[topic][0], 0)
  })

const offset = (client, topic, time) =>
  zoo.call((done) => new kafka.Offset(client).fetch([{ topic, partition: 0, time, maxNum: 1 }], done))
    .then((answer) => answer[topic][0][0])

const READING = { encoding: 'buffer', keyEncoding: 'buffer', autoCommit: false, fetchMaxWaitMs: 50 }

const read = (topic) =>
  using(async (client) => {
    await created(client, topic)
    const end = await offset(client, topic, -1)
    const records = []
    if (end === 0) return records
    const consumer = new kafka.Consumer(client, [{ topic, partition: 0, offset: 0 }], { ...READING, fromOffset: true, groupId: 'zoo-none' })
    await new Promise((resolve, reject) => {
      consumer.on('error', reject)
      consumer.on('offsetOutOfRange', reject)
      consumer.on('message', (m) => {
        records.push(record(m))
        if (m.offset + 1 >= end) resolve()
      })
    })
    consumer.pause()
    return records
  })

const group = async (topic, groupId, count, commit) => {
  const records = []
  const consumer = new kafka.ConsumerGroup({ ...SETTINGS, ...READING, groupId, fromOffset: 'earliest', sessionTimeout: 10000, heartbeatInterval: 1000 }, [topic])
  await new Promise((resolve, reject) => {
    consumer.on('error', reject)
    consumer.on('message', (m) => {
      if (records.length < count) records.push(record(m))
      if (records.length === count) resolve()
    })
  })
  if (commit !== undefined) {
    await zoo.call((done) => consumer.sendOffsetCommitRequest([{ topic, partition: 0, offset: commit, metadata: 'note' }], done))
  }
  await zoo.call((done) => consumer.close(false, done))
  return records
}

zoo.run({
  produce,
  read,
  group,
  bounds: (topic) => using(async (c) => [await offset(c, topic, -2), await offset(c, topic, -1)]),
  topics: () => using(async (c) => Object.keys((await zoo.call((done) => c.loadMetadataForTopics([], done)))[1].metadata)),
  admin: function* ({ created, filled, group }) {
    const ask = (run) => using((client) => zoo.call((done) => run(new kafka.Admin(client), done)))
    yield ['admin-create-topic', async () => {
      const configEntries = [{ name: 'retention.ms', value: '123456000' }]
      zoo.equal(await ask((a, done) => a.createTopics([{ topic: created, partitions: 2, replicationFactor: 1, configEntries }], done)), [])
    }]
    yield ['admin-describe-configs', async () => {
      const resources = [{ resourceType: 'topic', resourceName: created, configNames: [] }]
      const [answer] = await ask((a, done) => a.describeConfigs({ resources, includeSynonyms: false }, done))
      zoo.equal(answer.configEntries.find((e) => e.configName === 'retention.ms').configValue, '123456000')
    }]
    yield ['admin-list-topics', async () => {
      const [, { metadata }] = await ask((a, done) => a.listTopics(done))
      zoo.equal(Object.keys(metadata[created]).length, 2)
    }]
    yield ['admin-list-groups', async () => zoo.equal(Object.keys(await ask((a, done) => a.listGroups(done))).includes(group), true)]
    yield ['admin-describe-group', async () => zoo.equal((await ask((a, done) => a.describeGroups([group], done)))[group].state, 'Empty')]
    yield ['admin-list-group-offsets', () =>
      using(async (client) => {
        const answer = await zoo.call((done) => new kafka.Offset(client).fetchCommits(group, [{ topic: filled, partition: 0 }], done))
        zoo.equal(answer[filled][0], 10)
      })]
  },
})
