// A picture is dropped on the page, or pasted into it.
([data, event, holder]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "mine.jpg", { type: "image/jpeg" }));
  const happens = event === "drop" ? DragEvent : ClipboardEvent;
  document.body.dispatchEvent(new happens(event, { [holder]: files, bubbles: true, cancelable: true }));
}
