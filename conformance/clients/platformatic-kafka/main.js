// @platformatic/kafka: pure JavaScript, newest versions of every call.
const { Admin, Consumer, Producer, ProduceAcks } = require('@platformatic/kafka')
const zoo = require('../zoo')

const SETTINGS = { clientId: 'zoo', bootstrapBrokers: [zoo.BOOTSTRAP], timeout: 15000, autocreateTopics: true }
const admin = new Admin(SETTINGS)

const using = async (client, run) => {
  try {
    return await run(client)
  } finally {
    await client.close(true)
  }
}

const produce = (topic, codec, records, settings) =>
  using(new Producer({ ...SETTINGS, ...settings }), async (producer) => {
    const messages = records.map((r) => ({
      topic,
      partition: 0,
      key: r.key === null ? undefined : r.key,
      value: r.value === null ? undefined : r.value,
      timestamp: BigInt(r.timestamp),
      headers: new Map(r.headers.map(([name, v]) => [Buffer.from(name), v])),
    }))
    const { offsets } = await producer.send({ messages, compression: codec, acks: ProduceAcks.ALL })
    zoo.equal(offsets[0].offset, 0n)
  })

// consume reads from the committed offsets or the beginning until enough() says
// so. The library reads in groups only.
const consume = (topics, groupId, onMessage, commit) =>
  using(new Consumer({ ...SETTINGS, groupId, sessionTimeout: 10000, heartbeatInterval: 1000, rebalanceTimeout: 10000 }), async (consumer) => {
    const stream = await consumer.consume({ topics, mode: 'committed', fallbackMode: 'earliest', autocommit: false, maxWaitTime: 50 })
    for await (const m of stream) {
      const headers = [...m.headers].map(([name, v]) => [String(name), v])
      const record = { key: m.key ?? null, value: m.value ?? null, timestamp: Number(m.timestamp), headers }
      if (onMessage(m.topic, record, Number(m.offset))) break
    }
    if (commit !== undefined) {
      await consumer.commit({ offsets: [{ topic: topics[0], partition: 0, offset: BigInt(commit), leaderEpoch: 0 }] })
    }
  })

const offset = async (topic, timestamp) => {
  const [answer] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: BigInt(timestamp) }] }] })
  return Number(answer.partitions[0].offset)
}
const bounds = async (topic) => [await offset(topic, -2), await offset(topic, -1)]

const readAll = async (topics) => {
  const all = new Map(topics.map((topic) => [topic, []]))
  const ends = new Map()
  for (const topic of topics) ends.set(topic, await offset(topic, -1))
  await consume(topics, `zoo-${process.env.ZOO_ROW}-${Date.now()}`, (topic, record, at) => {
    all.get(topic).push(record)
    if (at + 1 >= ends.get(topic)) ends.delete(topic)
    return ends.size === 0
  })
  return all
}

const group = async (topic, groupId, count, commit) => {
  const records = []
  await consume([topic], groupId, (_, record) => records.push(record) === count, commit)
  return records
}

const TOPIC_RESOURCE = 2

const adminChecks = function* ({ created, filled, group }) {
  const partitions = async () => (await admin.metadata({ topics: [created], forceUpdate: true })).topics.get(created).partitionsCount
  const retention = async () => {
    const resources = [{ resourceType: TOPIC_RESOURCE, resourceName: created, configurationKeys: null }]
    const [answer] = await admin.describeConfigs({ resources })
    return answer.configs.find((c) => c.name === 'retention.ms').value
  }
  const groupOffset = async () => {
    const [answer] = await admin.listConsumerGroupOffsets({ groups: [{ groupId: group, topics: [{ name: filled, partitionIndexes: [0] }] }] })
    return Number(answer.topics[0].partitions[0].committedOffset)
  }
  yield ['admin-create-topic', () =>
    admin.createTopics({ topics: [created], partitions: 2, replicas: 1, configs: [{ name: 'retention.ms', value: '123456000' }] })]
  yield ['admin-list-topics', async () => zoo.equal((await admin.listTopics()).includes(created), true)]
  yield ['admin-describe-topic', () => zoo.soon(partitions, 2)]
  yield ['admin-describe-configs', () => zoo.soon(retention, '123456000')]
  yield ['admin-alter-configs', async () => {
    await admin.alterConfigs({ resources: [{ resourceType: TOPIC_RESOURCE, resourceName: created, configs: [{ name: 'retention.ms', value: '654321000' }] }] })
    await zoo.soon(retention, '654321000')
  }]
  yield ['admin-incremental-alter-configs', async () => {
    const configs = [{ name: 'retention.ms', value: '777000', configOperation: 0 }]
    await admin.incrementalAlterConfigs({ resources: [{ resourceType: TOPIC_RESOURCE, resourceName: created, configs }] })
    await zoo.soon(retention, '777000')
  }]
  yield ['admin-create-partitions', async () => {
    await admin.createPartitions({ topics: [{ name: created, count: 3, assignments: null }] })
    await zoo.soon(partitions, 3)
  }]
  yield ['admin-describe-log-dirs', async () => zoo.equal((await admin.describeLogDirs({ topics: [{ name: filled, partitions: [0] }] })).length, 1)]
  yield ['admin-describe-quotas', async () => {
    await admin.describeClientQuotas({ components: [{ entityType: 'client-id', matchType: 2, match: null }], strict: false })
  }]
  yield ['admin-list-groups', async () => zoo.equal((await admin.listGroups()).has(group), true)]
  yield ['admin-describe-group', async () => zoo.equal((await admin.describeGroups({ groups: [group] })).get(group).state, 'Empty')]
  yield ['admin-list-group-offsets', () => zoo.soon(groupOffset, 10)]
  yield ['admin-delete-group-offsets', async () => {
    await admin.deleteConsumerGroupOffsets({ groupId: group, topics: [{ name: filled, partitionIndexes: [0] }] })
    await zoo.soon(groupOffset, -1)
  }]
  yield ['admin-alter-group-offsets', async () => {
    await admin.alterConsumerGroupOffsets({ groupId: group, topics: [{ name: filled, partitionOffsets: [{ partition: 0, offset: 7n }] }] })
    await zoo.soon(groupOffset, 7)
  }]
  yield ['admin-delete-records', async () => {
    await admin.deleteRecords({ topics: [{ name: filled, partitions: [{ partition: 0, offset: 5n }] }] })
    zoo.equal((await bounds(filled))[0], 5)
  }]
  yield ['admin-delete-group', () => admin.deleteGroups({ groups: [group] })]
  yield ['admin-delete-topic', () => admin.deleteTopics({ topics: [created] })]
}

zoo.run({
  produce: (topic, codec, records) => produce(topic, codec, records, {}),
  idempotent: (topic, records) => produce(topic, 'none', records, { idempotent: true }),
  read: async (topic) => (await readAll([topic])).get(topic),
  readAll,
  group,
  bounds,
  offsetAt: async (topic, ms) => {
    const found = await offset(topic, ms)
    return found < 0 ? null : found
  },
  topics: () => admin.listTopics(),
  admin: adminChecks,
})
