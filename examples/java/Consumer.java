import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads hookstream's typed topics and handles each event once, with org.apache.kafka:kafka-clients and
 * org.apache.avro:avro alone (a Confluent KafkaAvroDeserializer reads the same bytes):
 *
 *   java -cp 'LIB/*' Consumer.java BOOTSTRAP REGISTRY_URL [TOPIC_PATTERN]
 *
 * where LIB holds the jars, for instance target/stack/lib after ./tests/run. It needs a real Kafka: the in-memory
 * one of `hookstream dev` is for clients built on librdkafka.
 */
public class Consumer {
    static final HttpClient HTTP = HttpClient.newHttpClient();
    static final Map<Integer, Schema> SCHEMAS = new ConcurrentHashMap<>();

    public static void main(String[] args) throws Exception {
        var pattern = Pattern.compile(args.length > 2 ? args[2] : "(datagrid|grapevine)\\..*");
        Map<String, Object> properties = Map.of(
                "bootstrap.servers", args[0],
                "group.id", "hookstream-example-java",
                "auto.offset.reset", "earliest",
                "enable.auto.commit", "false");
        // Delivery is at least once; a real consumer keeps the keys where it keeps its results.
        Set<String> seen = new HashSet<>();
        try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(pattern);
            while (true) {
                for (var message : consumer.poll(Duration.ofSeconds(1))) {
                    GenericRecord event = decode(args[1], message.value());
                    if (seen.add(message.key())) {
                        // timestamp-millis; generic records give it as the number it is
                        Object sent = event.get("time"); // null where the provider gave none
                        Instant time = Instant.ofEpochMilli((Long) (sent != null ? sent : event.get("received_at")));
                        System.out.println(message.key() + " " + time + " " + event.get("data"));
                    }
                }
                consumer.commitSync(); // after the work, so that a crash repeats it rather than loses it
            }
        }
    }

    /** A zero byte, the schema's id as four bytes, big-endian, then plain Avro. */
    static GenericRecord decode(String registry, byte[] value) throws Exception {
        ByteBuffer head = ByteBuffer.wrap(value);
        if (head.get() != 0) {
            throw new IllegalArgumentException("not in the wire format of a schema registry");
        }
        Schema schema = schema(registry, head.getInt());
        var decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        return new GenericDatumReader<GenericRecord>(schema).read(null, decoder);
    }

    static Schema schema(String registry, int id) throws Exception {
        Schema known = SCHEMAS.get(id);
        if (known == null) {
            var request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
            String body = HTTP.send(request, HttpResponse.BodyHandlers.ofString()).body();
            known = new Schema.Parser().parse(new ObjectMapper().readTree(body).get("schema").asText());
            SCHEMAS.put(id, known);
        }
        return known;
    }
}
