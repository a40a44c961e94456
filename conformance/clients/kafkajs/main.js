// KafkaJS, with snappy, LZ4 and zstd plugged in as its documentation says.
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')
const zoo = require('../zoo')

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
})
// The simple decoder wants the size of the content in the frame, which not all producers write.
const zstd = new Promise((resolve) => ZstdCodec.run((z) => resolve({ encoder: new z.Simple(), decoder: new z.Streaming() })))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd).encoder.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from((await zstd).decoder.decompress(buffer)),
})
const TYPES = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

const kafka = new Kafka({ clientId: 'zoo', brokers: [zoo.BOOTSTRAP], logLevel: logLevel.ERROR })
const admin = kafka.admin()
const ready = admin.connect()

const produce = async (topic, codec, records, settings) => {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...settings })
  await producer.connect()
  try {
    const [answer] = await producer.send({
      topic,
      compression: TYPES[codec],
      messages: records.map((r) => ({
        partition: 0,
        key: r.key,
        value: r.value,
        timestamp: String(r.timestamp),
        headers: Object.fromEntries(r.headers),
      })),
    })
    zoo.equal(answer.baseOffset, '0')
  } finally {
    await producer.disconnect()
  }
}

const bounds = async (topic) => {
  await ready
  const { low, high } = (await admin.fetchTopicOffsets(topic)).find((p) => p.partition === 0)
  return [Number(low), Number(high)]
}

// consume reads until enough() says so, then commits and leaves. KafkaJS reads
// in groups only.
const consume = async (topics, groupId, onMessage, commit) => {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 1000, maxWaitTimeInMs: 100 })
  await consumer.connect()
  try {
    await consumer.subscribe({ topics, fromBeginning: true })
    await new Promise((resolve, reject) => {
      consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ topic, message }) => {
            const headers = Object.entries(message.headers || {})
            const record = { key: message.key, value: message.value, timestamp: Number(message.timestamp), headers }
            if (onMessage(topic, record, Number(message.offset))) resolve()
          },
        })
        .catch(reject)
    })
    if (commit !== undefined) await consumer.commitOffsets([{ topic: topics[0], partition: 0, offset: String(commit) }])
  } finally {
    await consumer.disconnect()
  }
}

const readAll = async (topics) => {
  const all = new Map(topics.map((topic) => [topic, []]))
  const ends = new Map()
  for (const topic of topics) ends.set(topic, (await bounds(topic))[1])
  await consume(topics, `zoo-${process.env.ZOO_ROW}-${Date.now()}`, (topic, record, offset) => {
    all.get(topic).push(record)
    if (offset + 1 >= ends.get(topic)) ends.delete(topic)
    return ends.size === 0
  })
  return all
}

const group = async (topic, groupId, count, commit) => {
  const records = []
  await consume([topic], groupId, (_, record) => {
    if (records.length < count) records.push(record)
    return records.length === count
  }, commit)
  return records
}

const offsetAt = async (topic, ms) => {
  await ready
  const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, ms)
  // KafkaJS gives the end when no record is that young.
  return Number(offset) === (await bounds(topic))[1] ? null : Number(offset)
}

const adminChecks = function* ({ created, filled, group }) {
  const partitions = async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [created] })
    return topics[0].partitions.length
  }
  const retention = async () => {
    const answer = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: created }] })
    return answer.resources[0].configEntries.find((e) => e.configName === 'retention.ms').configValue
  }
  const groupOffset = async () => {
    const [topic] = await admin.fetchOffsets({ groupId: group, topics: [filled] })
    return topic.partitions[0].offset
  }
  yield ['admin-create-topic', async () => {
    const topic = { topic: created, numPartitions: 2, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '123456000' }] }
    zoo.equal(await admin.createTopics({ topics: [topic], waitForLeaders: true }), true)
  }]
  yield ['admin-list-topics', async () => zoo.equal((await admin.listTopics()).includes(created), true)]
  yield ['admin-describe-topic', () => zoo.soon(partitions, 2)]
  yield ['admin-describe-cluster', async () => zoo.equal((await admin.describeCluster()).brokers.length, 1)]
  yield ['admin-describe-configs', () => zoo.soon(retention, '123456000')]
  yield ['admin-alter-configs', async () => {
    const configEntries = [{ name: 'retention.ms', value: '654321000' }]
    await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: created, configEntries }] })
    await zoo.soon(retention, '654321000')
  }]
  yield ['admin-create-partitions', async () => {
    await admin.createPartitions({ topicPartitions: [{ topic: created, count: 3 }] })
    await zoo.soon(partitions, 3)
  }]
  yield ['admin-list-reassignments', async () => zoo.equal((await admin.listPartitionReassignments({})).topics, [])]
  yield ['admin-list-groups', async () => zoo.equal((await admin.listGroups()).groups.some((g) => g.groupId === group), true)]
  yield ['admin-describe-group', async () => zoo.equal((await admin.describeGroups([group])).groups[0].state, 'Empty')]
  yield ['admin-list-group-offsets', async () => zoo.equal(await groupOffset(), '10')]
  yield ['admin-alter-group-offsets', async () => {
    await admin.setOffsets({ groupId: group, topic: filled, partitions: [{ partition: 0, offset: '7' }] })
    zoo.equal(await groupOffset(), '7')
  }]
  yield ['admin-delete-records', async () => {
    await admin.deleteTopicRecords({ topic: filled, partitions: [{ partition: 0, offset: '5' }] })
    zoo.equal((await bounds(filled))[0], 5)
  }]
  yield ['admin-delete-group', async () => zoo.equal((await admin.deleteGroups([group]))[0].errorCode || 0, 0)]
  yield ['admin-delete-topic', () => admin.deleteTopics({ topics: [created] })]
}

zoo.run({
  produce: (topic, codec, records) => produce(topic, codec, records, {}),
  idempotent: (topic, records) => produce(topic, 'none', records, { idempotent: true, maxInFlightRequests: 1 }),
  read: async (topic) => (await readAll([topic])).get(topic),
  readAll,
  group,
  offsetAt,
  bounds,
  topics: async () => {
    await ready
    return admin.listTopics()
  },
  admin: adminChecks,
})
