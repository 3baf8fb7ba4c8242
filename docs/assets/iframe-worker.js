/* Search in the built site opened as files: browsers refuse workers there, so an invisible frame takes their place. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow;
      this.loaded = new Promise((resolve) => { this.frame.onload = resolve; inside.onload = resolve; });
      window.addEventListener("message", (event) => {
        if (event.source !== inside) return;
        const copy = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(copy);
        if (this.onmessage) this.onmessage(copy);
      });
      inside.document.open();
      inside.document.write(
        "<html><body><script>" +
        "postMessage = (data) => parent.dispatchEvent(new MessageEvent('message', { data, source: window }));" +
        "importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((resolve, reject) => {" +
        "  const script = document.createElement('script'); script.src = url; script.onload = resolve; script.onerror = reject;" +
        "  document.body.appendChild(script); })), Promise.resolve());" +
        "</" + "script><script src='" + url + "'></" + "script></body></html>"
      );
      inside.document.close();
    }
    postMessage(data) {
      this.loaded.then(() => {
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
      });
    }
    terminate() { this.frame.remove(); }
  };
}
