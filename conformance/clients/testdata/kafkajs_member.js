// A member of a group with KafkaJS that says what happens to it, one JSON
// object a line, as Apache Kafka's VerifiableConsumer does; SIGTERM ends it.
const { Kafka, logLevel } = require('kafkajs')

const [address, groupId, topic, heartbeat, session] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [address], logLevel: logLevel.ERROR })
const consumer = kafka.consumer({
  groupId,
  heartbeatInterval: Number(heartbeat),
  sessionTimeout: Number(session),
  maxWaitTimeInMs: 100,
})
const say = (name, fields) => process.stdout.write(JSON.stringify({ name, ...fields }) + '\n')

let held = []
const revokeAll = () => {
  const partitions = held
  held = []
  say('partitions_revoked', { partitions })
}

consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
  revokeAll()
  held = (payload.memberAssignment[topic] || []).map((partition) => ({ topic, partition }))
  say('partitions_assigned', { partitions: held })
})
consumer.on(consumer.events.CRASH, ({ payload }) => {
  console.error('crashed:', payload.error)
  process.exit(1)
})

const main = async () => {
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      say('record_data', { topic, partition, offset: Number(message.offset) })
      await consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }])
    },
  })
}

process.on('SIGTERM', async () => {
  await consumer.disconnect()
  say('shutdown_complete')
  process.exit(0)
})
main().catch((e) => {
  console.error(e)
  process.exit(1)
})
