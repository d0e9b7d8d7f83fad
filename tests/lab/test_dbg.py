from test_prober import *
import collections
@pytest.fixture
def scene(lab, start, tmp_path, backend):
    return Scene(lab, start, backend, tmp_path)
@pytest.mark.timeout(100)
@pytest.mark.parametrize("backend", ["asyncio"])
def test_dbg(scene, backend):
    prober = scene.probe(*scene.places)
    prober.event("echo")
    hanging(scene, scene.relays[0], 25)
    scene.lab.wait(5)
    for r in scene.relays:
        evs = [json.loads(l) for l in r._program.lines]
        print(collections.Counter(e["event"] for e in evs))
        for e in [e for e in evs if "refused" in e["event"] or "fail" in e["event"]][:5]:
            print(e, e["time"]-evs[0]["time"])
        print(r._program.ask("status")["limits"] if 0 else "")
    f = prober.events("failed")
    print(len(f), len(prober.events("echo")))
    for x in f[:3]: print(x["began"], x["reason"][:600])
    print([round(e["seconds"],2) for e in prober.events("echo")])
