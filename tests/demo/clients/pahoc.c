/* paho's C client with its defaults: pahoc URI VERSION (0: its default, 5: MQTT 5) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <MQTTClient.h>

static void must(int code, const char* what) {
  if (code < 0 || code == 1) { /* 0 is success, 2 the granted QoS */
    fprintf(stderr, "%s: %d\n", what, code);
    exit(1);
  }
}

int main(int argc, char* argv[]) {
  int five = argc > 2 && atoi(argv[2]) == 5;
  MQTTClient client;
  MQTTClient_createOptions create = {{'M', 'Q', 'C', 'O'}, 0, MQTTVERSION_5};
  MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
  MQTTClient_connectOptions ws = MQTTClient_connectOptions_initializer_ws;
  MQTTClient_connectOptions ws5 = MQTTClient_connectOptions_initializer5_ws;
  MQTTClient_connectOptions options5 = MQTTClient_connectOptions_initializer5;
  int web = strncmp(argv[1], "ws:", 3) == 0;
  MQTTClient_message* message = NULL;
  char* topic = NULL;
  int length = 0;
  const char* text = "from paho C";

  if (five) {
    MQTTResponse response;
    must(MQTTClient_createWithOptions(&client, argv[1], "pahoc", MQTTCLIENT_PERSISTENCE_NONE, NULL,
                                      &create), "create");
    response = MQTTClient_connect5(client, web ? &ws5 : &options5, NULL, NULL);
    must(response.reasonCode, "connect");
    MQTTResponse_free(response);
    MQTTClient_subscribe5(client, "hello/pahoc", 2, NULL, NULL);
    MQTTClient_publish5(client, "hello/pahoc", (int)strlen(text), text, 2, 0, NULL, NULL);
  } else {
    must(MQTTClient_create(&client, argv[1], "pahoc", MQTTCLIENT_PERSISTENCE_NONE, NULL), "create");
    must(MQTTClient_connect(client, web ? &ws : &options), "connect");
    must(MQTTClient_subscribe(client, "hello/pahoc", 2), "subscribe");
    must(MQTTClient_publish(client, "hello/pahoc", (int)strlen(text), text, 2, 0, NULL), "publish");
  }
  must(MQTTClient_receive(client, &topic, &length, &message, 20000), "receive");
  if (message == NULL) {
    fprintf(stderr, "nothing came\n");
    return 1;
  }
  printf("%.*s\n", message->payloadlen, (char*)message->payload);
  MQTTClient_freeMessage(&message);
  MQTTClient_free(topic);
  if (five) {
    MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL);
  } else {
    MQTTClient_disconnect(client, 1000);
  }
  MQTTClient_destroy(&client);
  return 0;
}
