// A kitchen panel: reports a temperature, says alarms, asks, and carries out what comes back.
//
//   npm install mqtt
//   node panel.mjs [mqtt://HOST:PORT]
//
// Its topics are those of the flows `alarm` and `home` of flows.toml.
import mqtt from 'mqtt'

const client = mqtt.connect(process.argv[2] ?? 'mqtt://127.0.0.1:1883', { protocolVersion: 5 })
const seen = new Set() // commands that were carried out: delivery is at least once
const readTemperature = () => 45.5 // your sensor

client.on('connect', async () => {
  await client.subscribeAsync(['alerts/oven', 'home/panel/say', 'home/devices/kitchen/light/set'], { qos: 1 })
  client.publish('sensors/oven/telemetry', JSON.stringify({ temperature: readTemperature() }), { qos: 1 })
  client.publish('home/panel/ask', 'Light up the kitchen.', { qos: 1 })
})

client.on('message', (topic, payload, packet) => {
  const text = payload.toString()
  if (topic === 'home/devices/kitchen/light/set') {
    const command = JSON.parse(text)
    if (seen.has(command.call_id)) return
    seen.add(command.call_id)
    console.log('lamp:', command.on ? 'on' : 'off')
  } else if (packet.properties?.userProperties?.error) {
    console.log('no answer:', text) // a sentence that says why
  } else {
    console.log(topic === 'alerts/oven' ? 'alarm:' : 'says:', text)
  }
})
