// no-kafka: Produce v1 and Fetch v0, groups at version 0 of every call, and
// offsets of its simple consumer in OffsetCommit v0.
const Kafka = require('no-kafka')
const zoo = require('../zoo')

const SETTINGS = { connectionString: zoo.BOOTSTRAP, clientId: 'zoo', logger: { logLevel: 1, logFunction: console.error } }
const CODECS = { none: Kafka.COMPRESSION_NONE, gzip: Kafka.COMPRESSION_GZIP, snappy: Kafka.COMPRESSION_SNAPPY }

const record = (m) => ({ key: m.message.key, value: m.message.value, timestamp: null, headers: null })

const using = async (client, run) => {
  await client.init()
  try {
    return await run(client)
  } finally {
    await client.end()
  }
}

const produce = (topic, codec, records) =>
  using(new Kafka.Producer({ ...SETTINGS, requiredAcks: -1 }), async (producer) => {
    // Asking creates the topic. What is sent before it has a leader goes out
    // again, and then out of order.
    while (!(await producer.client.findLeader(topic, 0).then(() => true, () => false))) await new Promise((resolve) => setTimeout(resolve, 50))
    const messages = records.map((r) => ({ topic, partition: 0, message: { key: r.key, value: r.value } }))
    const answers = await producer.send(messages, { codec: CODECS[codec] })
    for (const { error } of answers) if (error) throw error
  })

const simple = (run) => using(new Kafka.SimpleConsumer({ ...SETTINGS, idleTimeout: 20, maxWaitTime: 50 }), run)

const read = (topic) =>
  simple(async (consumer) => {
    const end = await consumer.offset(topic, 0, Kafka.LATEST_OFFSET)
    const records = []
    if (end === 0) return records
    await new Promise((resolve, reject) => {
      consumer
        .subscribe(topic, 0, { offset: 0 }, async (messages) => {
          for (const m of messages) records.push(record(m))
          if (messages[messages.length - 1].offset + 1 >= end) resolve()
        })
        .catch(reject)
    })
    return records
  })

const group = async (topic, groupId, count, commit) => {
  const records = []
  const settings = { ...SETTINGS, groupId, startingOffset: Kafka.EARLIEST_OFFSET, idleTimeout: 20, maxWaitTime: 50, sessionTimeout: 10000, heartbeatTimeout: 1000 }
  const consumer = new Kafka.GroupConsumer(settings)
  let done
  const enough = new Promise((resolve) => (done = resolve))
  await consumer.init([{
    subscriptions: [topic],
    handler: async (messages) => {
      for (const m of messages) if (records.length < count) records.push(record(m))
      if (records.length === count) done()
    },
  }])
  try {
    await enough
    // It commits the offset after the one that it is given.
    if (commit !== undefined) {
      for (const { error } of await consumer.commitOffset({ topic, partition: 0, offset: commit - 1 })) if (error) throw error
    }
  } finally {
    await consumer.end()
  }
  return records
}

zoo.run({
  produce,
  read,
  group,
  bounds: (topic) =>
    simple(async (c) => [await c.offset(topic, 0, Kafka.EARLIEST_OFFSET), await c.offset(topic, 0, Kafka.LATEST_OFFSET)]),
  admin: function* ({ filled, group }) {
    yield ['commit-v0', () =>
      simple(async (c) => {
        const [committed] = await c.commitOffset([{ topic: filled, partition: 0, offset: 12, metadata: 'note' }])
        if (committed.error) throw committed.error
        const [fetched] = await c.fetchOffset([{ topic: filled, partition: 0 }])
        zoo.equal([fetched.offset, fetched.metadata], [12, 'note'])
      })]
    yield ['admin-list-groups', () =>
      using(new Kafka.GroupAdmin(SETTINGS), async (a) =>
        zoo.equal((await a.listGroups()).some((g) => g.groupId === group), true))]
    yield ['admin-describe-group', () =>
      using(new Kafka.GroupAdmin(SETTINGS), async (a) => {
        const g = await a.describeGroup(group)
        zoo.equal([g.error, g.groupId, g.state], [null, group, 'Empty'])
      })]
    yield ['admin-group-lag', () =>
      using(new Kafka.GroupAdmin(SETTINGS), async (a) => {
        const [p] = await a.fetchConsumerLag(group, [{ topicName: filled, partitions: [0] }])
        zoo.equal([p.offset, p.highwaterMark, p.consumerLag], [10, zoo.COUNT, zoo.COUNT - 10])
      })]
  },
})
