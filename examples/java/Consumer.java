import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Pattern;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads hookstream's typed topics and handles each event once. Needs only org.apache.kafka:kafka-clients,
 * org.apache.avro:avro and com.fasterxml.jackson.core:jackson-databind; a Confluent KafkaAvroDeserializer reads the
 * same bytes.
 *
 *   java -cp 'LIB/*' Consumer.java BOOTSTRAP REGISTRY_URL [TOPIC_PATTERN]
 *
 * LIB is the directory with the jars, for example target/stack/lib after ./tests/run. The program needs a real Kafka:
 * the in-memory Kafka of `hookstream dev` works only with clients built on librdkafka.
 */
public class Consumer {
    static final int MOST_KEYS = 100_000;
    static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

    final String registry;
    final Map<Integer, Schema> schemas = new HashMap<>();

    /**
     * The keys handled last, to skip most duplicates. It forgets older keys: if handling an event twice does harm,
     * store the key with the result in one transaction.
     */
    final Map<String, Boolean> seen = new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > MOST_KEYS;
        }
    };

    Consumer(String registry) {
        this.registry = registry;
    }

    public static void main(String[] args) throws Exception {
        if (args.length < 2) {
            System.err.println("usage: Consumer.java BOOTSTRAP REGISTRY_URL [TOPIC_PATTERN]");
            System.exit(2);
        }
        // Dead letters are excluded: their topics begin with `dead_letter.`, and their values are not Avro.
        var pattern = Pattern.compile(args.length > 2 ? args[2] : "^(datagrid|grapevine)\\..*");
        var closed = new CountDownLatch(1);
        int code = 0;
        try {
            new Consumer(args[1]).consume(args[0], pattern, closed);
        } catch (WakeupException stop) {
            // SIGTERM or Ctrl-C
        } catch (Exception error) {
            System.err.println("consumer: " + error.getMessage());
            code = 1;
        }
        closed.countDown();
        System.exit(code);
    }

    void consume(String bootstrap, Pattern pattern, CountDownLatch closed) throws Exception {
        Map<String, Object> properties = Map.of(
                "bootstrap.servers", bootstrap,
                "group.id", "hookstream-example-java",
                "auto.offset.reset", "earliest",
                "enable.auto.commit", "false");
        try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new ByteArrayDeserializer())) {
            try {
                consumer.listTopics(Duration.ofSeconds(10));
            } catch (org.apache.kafka.common.errors.TimeoutException error) {
                throw new IOException("Kafka does not answer at " + bootstrap);
            }
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    closed.await();
                } catch (InterruptedException ignored) {
                    // the process is ending anyway
                }
            }));
            consumer.subscribe(pattern);
            while (true) {
                for (var message : consumer.poll(Duration.ofSeconds(1))) {
                    take(message);
                }
                consumer.commitSync(); // after the work: a crash repeats the work instead of losing it
            }
        }
    }

    void take(ConsumerRecord<String, byte[]> message) throws Exception {
        byte[] value = message.value();
        String place = message.topic() + "/" + message.partition() + "/" + message.offset();
        // hookstream never writes the first two; other producers may.
        if (value == null) {
            System.err.println("skipped " + place + ": a tombstone");
        } else if (value.length < 5 || value[0] != 0) {
            System.err.println("skipped " + place + ": not in the wire format of a schema registry");
        } else if (!seen.containsKey(message.topic() + " " + message.key())) {
            handle(message.key(), decode(value));
            seen.put(message.topic() + " " + message.key(), true);
        }
    }

    /** The work. A crash may repeat it, so it must be idempotent, such as an upsert by key. */
    static void handle(String key, GenericRecord event) {
        // timestamp-millis, which generic records return as a number
        Object sent = event.get("time"); // null if the provider sent none
        Instant time = Instant.ofEpochMilli((Long) (sent != null ? sent : event.get("received_at")));
        System.out.println(key + " " + time + " " + event.get("type") + " " + event.get("data"));
    }

    /** A zero byte, the schema id as four bytes in big-endian order, then plain Avro. */
    GenericRecord decode(byte[] value) throws Exception {
        Schema schema = schema(ByteBuffer.wrap(value, 1, 4).getInt());
        var decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        return new GenericDatumReader<GenericRecord>(schema).read(null, decoder);
    }

    Schema schema(int id) throws Exception {
        Schema known = schemas.get(id);
        if (known == null) {
            var request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id))
                    .timeout(Duration.ofSeconds(10)).build();
            HttpResponse<String> answer;
            try {
                answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
            } catch (IOException error) {
                throw new IOException("the registry does not answer at " + registry, error);
            }
            if (answer.statusCode() != 200) {
                throw new IOException("the registry answered " + answer.statusCode() + " for schema " + id);
            }
            known = new Schema.Parser().parse(new ObjectMapper().readTree(answer.body()).get("schema").asText());
            schemas.put(id, known);
        }
        return known;
    }
}
